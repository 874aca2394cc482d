package pool

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestConfig_ValidateNamesTheField(t *testing.T) {
	varint := must(framing.NewVarint(100))
	tooOld := &tls.Config{MaxVersion: tls.VersionTLS12}
	writers := map[string]WriterConfig{
		"WriterConfig.Address":                        {},
		"WriterConfig.MaxMessageSize":                 {Address: "a:1", MaxMessageSize: -1},
		"WriterConfig.MaxMessageSize: 99 contradicts": {Address: "a:1", MaxMessageSize: 99, Codec: varint},
		"WriterConfig.BufferSize":                     {Address: "a:1", BufferSize: -1},
		"WriterConfig.DialTimeout":                    {Address: "a:1", DialTimeout: -1},
		"WriterConfig.CloseTimeout":                   {Address: "a:1", CloseTimeout: -1},
		"WriterConfig.TLSConfig":                      {Address: "a:1", TLSConfig: tooOld},
		"WriterConfig.Failures":                       {Address: "a:1", OnFailure: func(Failure) {}, Failures: make(chan Failure)},
		"RetryConfig.MaxAttempts":                     {Address: "a:1", Retry: &RetryConfig{MaxAttempts: -2}},
		"RetryConfig.InitialInterval":                 {Address: "a:1", Retry: &RetryConfig{InitialInterval: -1}},
		"RetryConfig.MaxInterval":                     {Address: "a:1", Retry: &RetryConfig{MaxInterval: time.Millisecond}},
		"RetryConfig.Multiplier":                      {Address: "a:1", Retry: &RetryConfig{Multiplier: 0.5}},
	}
	for field, cfg := range writers {
		assert.ErrorContains(t, cfg.Validate(), field)
		_, err := DialTCP(cfg)
		assert.ErrorContains(t, err, field)
	}
	messages := make(chan []byte)
	listeners := map[string]ListenerConfig{
		"ListenerConfig.Address":          {Callback: ignore},
		"ListenerConfig.Callback":         {Address: "127.0.0.1:0"},
		"ListenerConfig.Messages":         {Address: "127.0.0.1:0", Callback: ignore, Messages: messages},
		"ListenerConfig.MaxMessageSize":   {Address: "127.0.0.1:0", Callback: ignore, MaxMessageSize: -1},
		"ListenerConfig.IdleTimeout":      {Address: "127.0.0.1:0", Callback: ignore, IdleTimeout: -1},
		"ListenerConfig.HandshakeTimeout": {Address: "127.0.0.1:0", Callback: ignore, HandshakeTimeout: -1},
		"ListenerConfig.TLSConfig":        {Address: "127.0.0.1:0", Callback: ignore, TLSConfig: tooOld},
		"ListenerConfig.CloseTimeout":     {Address: "127.0.0.1:0", Callback: ignore, CloseTimeout: -1},
	}
	for field, cfg := range listeners {
		assert.ErrorContains(t, cfg.Validate(), field)
		_, err := ListenTCP(cfg)
		assert.ErrorContains(t, err, field)
	}
	assert.NoError(t, WriterConfig{Address: "a:1"}.Validate())
	assert.NoError(t, WriterConfig{Address: "a:1", MaxMessageSize: 100, Codec: varint}.Validate())
	assert.NoError(t, ListenerConfig{Address: "127.0.0.1:0", Messages: messages}.Validate())
}

func TestConfig_AnyCodecCanBeChosen(t *testing.T) {
	testkit.CheckLeaks(t)
	codec := must(framing.NewVarint(1 << 20))
	got := make(chan string, 1)
	l := startListener(t, ListenerConfig{Codec: codec, Callback: collect(got)})
	w := dialWriterTo(t, l, WriterConfig{Codec: codec})
	for _, n := range []int{0, 1, 127, 128, 20000, 1 << 20} {
		_, err := w.Write(patterned(n))
		require.NoError(t, err)
		assert.Equal(t, string(patterned(n)), testkit.Receive(t, got))
	}
}

func TestFormatAddress(t *testing.T) {
	for _, c := range [][3]string{
		{"127.0.0.1", "5031", "127.0.0.1:5031"},
		{"", "5031", ":5031"},
		{"localhost", "0", "localhost:0"},
		{"::1", "5031", "[::1]:5031"},
		{"[::1]", "5031", "[::1]:5031"},
	} {
		assert.Equal(t, c[2], FormatAddress(c[0], c[1]))
	}
}
