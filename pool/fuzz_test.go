package pool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// scriptedConn is a connection whose peer has said everything already, then hangs up; what it is told is kept.
type scriptedConn struct {
	in     *bytes.Reader
	mu     sync.Mutex
	out    bytes.Buffer
	closed chan struct{}
	once   sync.Once
}

func newScriptedConn(in []byte) *scriptedConn {
	return &scriptedConn{in: bytes.NewReader(in), closed: make(chan struct{})}
}

func (c *scriptedConn) Read(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
		return c.in.Read(p)
	}
}

func (c *scriptedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *scriptedConn) told() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.out.Bytes())
}

func (c *scriptedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (*scriptedConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (*scriptedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 2} }
func (*scriptedConn) SetDeadline(time.Time) error      { return nil }
func (*scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (*scriptedConn) SetWriteDeadline(time.Time) error { return nil }

// ends waits long, in many short waits: a process that was stopped meanwhile has not waited.
func (c *scriptedConn) ends(t *testing.T) {
	t.Helper()
	for range 60 {
		select {
		case <-c.closed:
			return
		case <-time.After(time.Second):
		}
	}
	t.Fatal("the connection goes on")
}

// Small limits, so that a short input reaches them.
const (
	fuzzCap    = 6
	fuzzMemory = 64 << 10
)

func fuzzConfig() AckedConfig {
	return AckedConfig{
		MaxMessageSize: 1024, WindowMessages: 40, WindowBytes: 4 << 10, MemoryLimit: fuzzMemory,
		MaxTopics: fuzzCap, MaxPublishers: fuzzCap, MaxStreams: fuzzCap, HandshakeTimeout: time.Hour,
	}
}

func fuzzEncoder(t testing.TB) session.Encoder {
	codec, err := ackedCodec(1024)
	require.NoError(t, err)
	return session.Encoder{Codec: codec, Checksum: true}
}

// frames makes a conversation of bytes: whole frames of any type whose fields are small numbers or those near the ends of
// 64 bits, in any order, with raw bytes and wrong checksums between.
type frames struct {
	t   testing.TB
	enc session.Encoder
	in  []byte
	out []byte
}

func (s *frames) byte() int {
	if len(s.in) == 0 {
		return 0
	}
	b := s.in[0]
	s.in = s.in[1:]
	return int(b)
}

func (s *frames) take(n int) []byte {
	n = min(n, len(s.in))
	out := s.in[:n]
	s.in = s.in[n:]
	return out
}

func (s *frames) number() uint64 {
	switch b := s.byte(); {
	case b < 220:
		return uint64(b % 16)
	case b < 245:
		return ^uint64(0) - uint64(b%6)
	default:
		return binary.LittleEndian.Uint64(append(bytes.Clone(s.take(8)), make([]byte, 8)...))
	}
}

func (s *frames) control(f *wire.Frame) {
	out, err := s.enc.AppendControl(s.out, f)
	require.NoError(s.t, err)
	s.out = out
}

func (s *frames) id() []byte {
	id := make([]byte, 16)
	if id[0] = byte(s.byte()); id[0] > 250 {
		return id[:int(id[0])-250]
	}
	id[0] %= 12 // so few that they meet
	return id
}

func (s *frames) topic() string { return []string{"a", "b", "", "c", "long\r\n\x00"}[s.byte()%5] }

func (s *frames) messages() (out [][]byte) {
	for range s.byte() % 5 {
		n := s.byte()
		if n > 250 {
			n = 1020 + n%8 // about the limit
		}
		out = append(out, bytes.Repeat([]byte{'m'}, n))
	}
	return out
}

// sender appends one frame of a sender, or something else.
func (s *frames) sender() {
	switch s.byte() % 12 {
	case 0, 1:
		s.control(&wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{
			Handle: s.number(), Publisher: s.id(), Secret: s.id(), Epoch: s.number(), Stream: s.number(), Topic: s.topic(),
			Base: s.number(), WantMessages: s.number(), WantBytes: s.number() * 100, LeastBytes: s.number(),
		}}})
	case 2, 3, 4:
		s.control(&wire.Frame{Body: &wire.Frame_Publish{Publish: &wire.Publish{
			Handle: s.number(), First: s.number(), Flags: uint32(s.byte()) % 4, Messages: s.messages(),
		}}})
	case 5:
		s.control(&wire.Frame{Body: &wire.Frame_Want{Want: &wire.Want{
			Handle: s.number(), Messages: s.number(), Bytes: s.number(), LeastBytes: s.number(), SeenMessages: s.number(),
		}}})
	case 6:
		s.control(&wire.Frame{Body: &wire.Frame_RejectSeen{RejectSeen: &wire.RejectSeen{Handle: s.number(), Sequence: s.number()}}})
	case 7:
		s.control(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: s.number()}}})
	case 8:
		s.control(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: s.number()}}})
	case 9:
		s.control(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: s.number()}}})
	default:
		s.strange()
	}
}

// strange appends what no peer should send.
func (s *frames) strange() {
	switch s.byte() % 5 {
	case 0:
		s.out = append(s.out, s.take(s.byte()%16)...)
	case 1: // the right checksum of any bytes
		payload := s.take(s.byte() % 40)
		s.out = append(s.out, sealedPayload(payload)...)
	case 2:
		s.control(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}})
	case 3:
		s.control(&wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{Code: wire.Code(s.byte())}}})
	case 4:
		if len(s.out) > 0 {
			s.out[s.byte()*7%len(s.out)] ^= byte(s.byte())
		}
	}
}

func sealedPayload(payload []byte) []byte {
	codec, err := ackedCodec(1024)
	if err != nil {
		return nil
	}
	// A frame whose only field is unknown is copied as it is: the encoder then adds the checksum of exactly these bytes.
	f := &wire.Frame{}
	f.ProtoReflect().SetUnknown(payload)
	out, err := (session.Encoder{Codec: codec, Checksum: true}).AppendControl(nil, f)
	if err != nil {
		return nil
	}
	return out
}

// FuzzEndpoint says anything to a listener, on two connections one after the other. Each ends, what is remembered stays
// below its limits, and when the consumer has handled everything, no room is missing.
func FuzzEndpoint(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 1, 1, 0, 1, 3, 3, 1, 2, 1, 1, 0, 2, 9, 9, 8, 5, 7, 1})
	f.Add([]byte{0, 1, 1, 1, 1, 1, 0, 1, 3, 3, 1, 3, 1, 1, 0, 1, 255, 6, 1, 1, 128, 0, 2, 1, 1, 2, 1, 0, 1, 3, 3, 1})
	f.Add([]byte{10, 1, 5, 0x52, 2, 8, 1, 10, 4, 9, 1})
	f.Add([]byte("\x00GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			t.Skip("long")
		}
		pipes := newPipeListener()
		m := newTestManager(t, ManagerConfig{Listen: pipes.listen, Acked: fuzzConfig()})
		e, err := m.Endpoint(Target{Network: "tcp", Address: "127.0.0.1:1"})
		require.NoError(t, err)
		member := e.Topic("a").Join("g", func() {})
		s := &frames{t: t, enc: fuzzEncoder(t), in: data}
		for range 2 {
			s.out = nil
			s.control(&wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{Version: 1, MaxFrame: session.MinFrame}}})
			for range min(40, len(s.in)) {
				s.sender()
			}
			conn := newScriptedConn(s.out)
			pipes.accepts <- conn
			conn.ends(t)
			require.LessOrEqual(t, len(conn.told()), 4096+200*len(s.out))
			checkTold(t, s.enc, conn.told())
			requireCaps(t, e)
			for d, ok := member.Take(); ok; d, ok = member.Take() {
				require.LessOrEqual(t, len(d.Message()), 1024)
				member.Settle(d)
			}
		}
		require.NoError(t, m.Close())
		require.True(t, m.acked.held.Take(fuzzMemory), "the budget has everything back")
	})
}

func requireCaps(t *testing.T, e *Endpoint) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	require.LessOrEqual(t, e.count, fuzzCap)
	require.LessOrEqual(t, len(e.publishers), fuzzCap)
	require.LessOrEqual(t, len(e.topics), fuzzCap)
	streams := 0
	for _, p := range e.publishers {
		streams += len(p.streams)
	}
	require.Equal(t, e.count, streams)
}

// checkTold wants whole frames that a sender can read, of which a Failure is the last.
func checkTold(t *testing.T, enc session.Encoder, told []byte) {
	t.Helper()
	r := framing.NewReader(bytes.NewReader(told), enc.Codec)
	failed := false
	for {
		payload, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		payload, err = enc.Open(payload)
		require.NoError(t, err)
		frame, err := session.Decode(payload)
		require.NoError(t, err)
		require.False(t, failed, "%v follows a failure", frame)
		_, failed = frame.(*wire.Failure)
	}
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
	pipes := newPipeListener()
	m, err := NewManager(ManagerConfig{Listen: pipes.listen, Acked: fuzzConfig()})
	require.NoError(f, err)
	f.Cleanup(func() { _ = m.Close() })
	_, err = m.Endpoint(Target{Network: "tcp", Address: "127.0.0.1:1"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, payload []byte) {
		frame := sealedPayload(payload)
		if len(payload) > 4<<10-5 {
			t.Skip("longer than a greeting may be")
		}
		conn := newScriptedConn(frame)
		pipes.accepts <- conn
		conn.ends(t)
		var sent wire.Frame
		err := proto.Unmarshal(payload, &sent)
		hello := sent.GetHello()
		welcome := err == nil && hello != nil && hello.Version >= 1 && hello.MaxFrame >= session.MinFrame
		told := conn.told()
		checkTold(t, fuzzEncoder(t), told)
		if len(told) == 0 { // a Welcome that crosses the end of the connection can get lost
			return
		}
		var answer wire.Frame
		require.NoError(t, proto.Unmarshal(told[4:4+binary.BigEndian.Uint32(told)], &answer))
		require.Equal(t, welcome, answer.GetWelcome() != nil, "%v is answered with %v", &sent, &answer)
	})
}

// listener appends one frame of a listener, or something else.
func (s *frames) listener() {
	handle := s.number() % 4
	switch s.byte() % 10 {
	case 0, 1:
		s.control(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{
			Handle: handle, Code: wire.Code(s.byte() % 3 * (s.byte() % 12)), Next: s.number(), Settled: s.pairs(),
		}}})
	case 2, 3, 4:
		s.control(&wire.Frame{Body: &wire.Frame_Ack{Ack: &wire.Ack{
			Handle: handle, Next: s.number(), Settled: s.pairs(), CreditMessages: s.number(), CreditBytes: s.number() * 100,
		}}})
	case 5:
		s.control(&wire.Frame{Body: &wire.Frame_Reject{Reject: &wire.Reject{Handle: handle, Sequence: s.number(), Reason: "\x1b[31m\n"}}})
	case 6:
		s.control(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: s.number()}}})
	case 7:
		s.control(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: uint32(s.byte() % 3), MaxFrame: 1 << 17}}})
	default:
		s.strange()
	}
}

func (s *frames) pairs() (out []uint64) {
	for range s.byte() % 4 {
		first := s.number()
		out = append(out, first, first+s.number()%4)
	}
	return out
}

// FuzzLink has a listener say anything to a link that has messages for it. The connection ends, the link lives on until
// it is closed, and then nothing is missing from the budget.
func FuzzLink(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 0, 1, 2, 1, 0, 9, 30, 1, 3, 3, 0, 0, 1, 5, 1})
	f.Add([]byte{1, 5, 0, 6, 1, 1, 7, 1, 1, 8, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			t.Skip("long")
		}
		s := &frames{t: t, enc: fuzzEncoder(t), in: data}
		if s.byte()%8 != 0 {
			s.control(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: 1, MaxFrame: 1 << 17, MaxMessage: 1024}}})
		}
		for range min(40, len(s.in)) {
			s.listener()
		}
		conn := newScriptedConn(s.out)
		dialed := make(chan net.Conn, 1)
		dialed <- conn
		m := newTestManager(t, ManagerConfig{Acked: fuzzConfig(), Dial: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-dialed:
				return c, nil
			default:
				return nil, errNetworkDown
			}
		}})
		l, err := m.Link(Target{Network: "tcp", Address: "127.0.0.1:1"})
		require.NoError(t, err)
		for _, topic := range []string{"a", "b"} {
			_, err = l.Publish(context.Background(), topic, batchOf(t, "one", "two", "three"), 0, 0)
			if err != nil { // the connection has ended the stream already
				var refused *session.PeerError
				require.ErrorAs(t, err, &refused)
			}
		}
		conn.ends(t)
		require.NoError(t, m.Close())
		require.True(t, m.acked.kept.Take(fuzzMemory), "the budget has everything back")
	})
}

// FuzzPlainListener feeds bytes to a listener of plain messages; what its callback gets is what a Reader makes of them.
func FuzzPlainListener(f *testing.F) {
	codec, err := framing.NewBuffStreams(64)
	require.NoError(f, err)
	good, err := codec.AppendHeader(nil, 3)
	require.NoError(f, err)
	f.Add(append(append(bytes.Clone(good), "abc"...), good...))
	f.Add([]byte("\x82\x40\x00"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00"))
	pipes := newPipeListener()
	var got [][]byte // of the connection at hand: there is one at a time
	l, err := ListenTCP(ListenerConfig{
		Address: "127.0.0.1:1", MaxMessageSize: 64, Listen: pipes.listen, MaxEmptyMessages: Unlimited,
		Callback: func(b []byte) error { got = append(got, bytes.Clone(b)); return nil },
	})
	require.NoError(f, err)
	require.NoError(f, l.StartListeningAsync())
	f.Cleanup(func() { _ = l.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		got = nil
		conn := newScriptedConn(data)
		pipes.accepts <- conn
		conn.ends(t)
		r := framing.NewReader(bytes.NewReader(data), codec)
		i := 0
		for ; ; i++ {
			want, err := r.Next()
			if err != nil {
				break
			}
			require.Less(t, i, len(got))
			require.Equal(t, string(want), string(got[i]))
		}
		require.Len(t, got, i)
	})
}
