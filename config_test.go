package buffstreams

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestPublisherConfig_NilOutbox: a variable of a pointer type that nobody has set must not become an outbox that panics.
func TestPublisherConfig_NilOutbox(t *testing.T) {
	type outbox struct{ store.Outbox }
	require.NoError(t, PublisherConfig{}.Validate())
	require.NoError(t, PublisherConfig{Outbox: &outbox{}}.Validate())
	require.NoError(t, PublisherConfig{Outbox: outbox{}}.Validate())
	require.ErrorContains(t, PublisherConfig{Outbox: (*outbox)(nil)}.Validate(), "PublisherConfig.Outbox")
}

// A PublishTimeout below zero is no bound anywhere: 0 says so from the defaults on.
func TestPublisherConfig_PublishTimeoutBelowZeroIsNoBound(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{-1: 0, -time.Hour: 0, 0: DefaultPublishTimeout, 1: 1} {
		cfg := PublisherConfig{PublishTimeout: given}
		cfg.setDefaults()
		require.Equal(t, want, cfg.PublishTimeout)
	}
}

// TestConfig_DefaultsAreTheDocumented, each where nothing else is said, and none where something is.
func TestConfig_DefaultsAreTheDocumented(t *testing.T) {
	var pub, plainPub PublisherConfig
	plainPub.Wire = WireBuffStreams
	pub.setDefaults()
	plainPub.setDefaults()
	require.Equal(t, PublisherConfig{Marshaler: EnvelopeMarshaler{}, PublishTimeout: 30 * time.Second, CloseTimeout: 5 * time.Second}, pub)
	require.Equal(t, RawMarshaler{}, plainPub.Marshaler)

	sub, plainSub := SubscriberConfig{}, SubscriberConfig{Wire: WireBuffStreams, NackResendSleep: time.Minute}
	sub.setDefaults()
	plainSub.setDefaults()
	require.Equal(t, SubscriberConfig{
		Unmarshaler: EnvelopeMarshaler{}, MaxInFlight: 1, NackResendSleep: 100 * time.Millisecond, NackResendCap: 10 * time.Second,
		CloseTimeout: 5 * time.Second,
	}, sub)
	require.Equal(t, RawMarshaler{}, plainSub.Unmarshaler)
	require.Equal(t, time.Minute, plainSub.NackResendCap, "no less than NackResendSleep")

	var m ManagerConfig
	m.setDefaults()
	require.NotNil(t, m.Listen)
	require.NotNil(t, m.Logger)
	require.Equal(t, 5*time.Second, m.CloseTimeout)
	acked := m.Acked
	require.Equal(t, []any{100 * time.Millisecond, 10 * time.Second, 2.0},
		[]any{acked.Reconnect.InitialInterval, acked.Reconnect.MaxInterval, acked.Reconnect.Multiplier})
	require.NotNil(t, acked.Reconnect.BackOff)
	acked.Reconnect = nil
	require.Equal(t, AckedConfig{
		MaxMessageSize: 1 << 20, WindowMessages: 16384, WindowBytes: 16 << 20, MemoryLimit: 256 << 20,
		HandshakeTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, PingAfter: 10 * time.Second, DeadAfter: 30 * time.Second,
		MoveAfter: 5 * time.Second, ForgetAfter: 5 * time.Minute,
		MaxConnections: 16384, MaxConnectionsPerHost: 4096, MaxTopics: 65536, MaxPublishers: 65536, MaxStreams: 65536,
	}, acked)

	few := AckedConfig{MaxConnections: 2, Reconnect: &ReconnectConfig{InitialInterval: time.Minute}}
	given := few.Reconnect
	few.setDefaults()
	require.Equal(t, 1, few.MaxConnectionsPerHost)
	require.Equal(t, time.Minute, few.Reconnect.MaxInterval, "no less than InitialInterval")
	require.Zero(t, given.MaxInterval, "the user's stays as it is")
}
