package receiver

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Small limits, so that a short input reaches them.
const (
	fuzzCap    = 6
	fuzzMemory = 64 << 10
)

func fuzzConfig() Config {
	return Config{
		MaxMessageSize: 1024, WindowMessages: 40, WindowBytes: 4 << 10, Budget: flow.NewBudget(fuzzMemory),
		MaxTopics: fuzzCap, MaxPublishers: fuzzCap, MaxStreams: fuzzCap, HandshakeTimeout: time.Hour,
	}
}

// FuzzReceiver says anything to a listener, on two connections one after the other. Each ends, what is remembered stays
// below its limits, and when the consumer has handled everything, no room is missing.
func FuzzReceiver(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 1, 1, 0, 1, 3, 3, 1, 2, 1, 1, 0, 2, 9, 9, 8, 5, 7, 1})
	f.Add([]byte{0, 1, 1, 1, 1, 1, 0, 1, 3, 3, 1, 3, 1, 1, 0, 1, 255, 6, 1, 1, 128, 0, 2, 1, 1, 2, 1, 0, 1, 3, 3, 1})
	f.Add([]byte{10, 1, 5, 0x52, 2, 8, 1, 10, 4, 9, 1})
	f.Add([]byte("\x00GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			t.Skip("long")
		}
		pipes := testkit.NewPipeListener()
		cfg := fuzzConfig()
		r := start(t, cfg, pipes)
		member := r.Topic("a").Join("g", func() {})
		s := &acktest.Script{T: t, Enc: acktest.FuzzEncoder(t), In: data}
		for range 2 {
			s.Out = nil
			s.Control(&wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{
				Version: 1, MaxFrame: session.MinFrame, Features: []string{session.FeatureMove},
			}}})
			for range min(40, len(s.In)) {
				s.Sender()
			}
			conn := testkit.NewScriptedConn(s.Out)
			pipes.Accepts <- conn
			conn.AwaitClose(t)
			require.LessOrEqual(t, len(conn.Written()), 4096+200*len(s.Out))
			acktest.CheckWritten(t, s.Enc, conn.Written())
			requireCaps(t, r)
			for d, _, ok := member.Take(); ok; d, _, ok = member.Take() {
				require.LessOrEqual(t, len(d.Message()), 1024)
				member.Settle(d)
			}
		}
		require.NoError(t, r.Close(context.Background()))
		require.Equal(t, fuzzMemory, cfg.Budget.Free(), "the budget has everything back")
	})
}

func requireCaps(t *testing.T, r *Receiver) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	require.LessOrEqual(t, r.streamCount, fuzzCap)
	require.LessOrEqual(t, len(r.publishers), fuzzCap)
	require.LessOrEqual(t, len(r.topics), fuzzCap)
	streams := 0
	for _, p := range r.publishers {
		streams += len(p.streams)
	}
	require.Equal(t, r.streamCount, streams)
}

// FuzzGreeting sends any payload, its checksum right, as the first frame. It is welcomed if it is a Hello that the
// generated code reads and whose numbers will do, and only then.
func FuzzGreeting(f *testing.F) {
	for _, h := range []*wire.Hello{
		{Version: 1, MaxFrame: 1 << 20, Agent: "a", Token: []byte("t")}, {Version: 0, MaxFrame: 1 << 20}, {Version: 9, MaxFrame: 1 << 40},
		{Version: 1, MaxFrame: session.MinFrame - 1},
	} {
		payload, err := proto.Marshal(&wire.Frame{Body: &wire.Frame_Hello{Hello: h}})
		require.NoError(f, err)
		f.Add(payload)
	}
	f.Add([]byte{0x52, 2, 8, 1})
	f.Add([]byte{})
	pipes := testkit.NewPipeListener()
	start(f, fuzzConfig(), pipes)
	f.Fuzz(func(t *testing.T, payload []byte) {
		frame := acktest.SealedPayload(payload)
		if len(payload) > 4<<10-5 {
			t.Skip("longer than a greeting may be")
		}
		conn := testkit.NewScriptedConn(frame)
		pipes.Accepts <- conn
		conn.AwaitClose(t)
		var sent wire.Frame
		err := proto.Unmarshal(payload, &sent)
		hello := sent.GetHello()
		welcome := err == nil && hello != nil && hello.Version >= 1 && hello.MaxFrame >= session.MinFrame
		written := conn.Written()
		acktest.CheckWritten(t, acktest.FuzzEncoder(t), written)
		if len(written) == 0 { // a Welcome that crosses the end of the connection can get lost
			return
		}
		var answer wire.Frame
		require.NoError(t, proto.Unmarshal(written[4:4+binary.BigEndian.Uint32(written)], &answer))
		require.Equal(t, welcome, answer.GetWelcome() != nil, "%v is answered with %v", &sent, &answer)
	})
}
