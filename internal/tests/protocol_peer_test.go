package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// wirePeer is one end of a connection in plaintext.
type wirePeer struct {
	t    *testing.T
	conn net.Conn
}

func newWirePeer(t *testing.T, conn net.Conn, err error) *wirePeer {
	t.Helper()
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return &wirePeer{t: t, conn: conn}
}

// framed puts the length before a payload.
func framed(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// sealed is the frame of a payload with its checksum.
func sealed(payload []byte) []byte {
	sum := crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	return framed(binary.LittleEndian.AppendUint32(append(bytes.Clone(payload), trailerTag), sum))
}

// payloadOf encodes a Frame with the given body.
func payloadOf(t testing.TB, body proto.Message) []byte {
	t.Helper()
	f := (&wire.Frame{}).ProtoReflect()
	kinds := f.Descriptor().Oneofs().ByName("body").Fields()
	for i := range kinds.Len() {
		if kinds.Get(i).Message().FullName() == body.ProtoReflect().Descriptor().FullName() {
			f.Set(kinds.Get(i), protoreflect.ValueOfMessage(body.ProtoReflect()))
		}
	}
	payload, err := proto.Marshal(f.Interface())
	require.NoError(t, err)
	require.NotEmpty(t, payload, "%T is no frame", body)
	return payload
}

func (p *wirePeer) write(frame []byte) {
	p.t.Helper()
	_, err := p.conn.Write(frame)
	require.NoError(p.t, err)
}

func (p *wirePeer) send(body proto.Message) {
	p.t.Helper()
	p.write(sealed(payloadOf(p.t, body)))
}

// readFrame reads one frame, header included.
func (p *wirePeer) readFrame() ([]byte, error) {
	frame := make([]byte, 4)
	if _, err := io.ReadFull(p.conn, frame); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(frame)
	require.LessOrEqual(p.t, size, uint32(leastFrame))
	frame = append(frame, make([]byte, size)...)
	_, err := io.ReadFull(p.conn, frame[4:])
	return frame, err
}

// decodeFrame checks a frame's length and checksum and returns its body.
func decodeFrame(t testing.TB, frame []byte) proto.Message {
	t.Helper()
	require.GreaterOrEqual(t, len(frame), 4+trailerSize)
	require.Equal(t, len(frame)-4, int(binary.BigEndian.Uint32(frame)))
	end := len(frame) - trailerSize
	require.Equal(t, sealed(frame[4:end]), frame, "checksum")
	var f wire.Frame
	require.NoError(t, proto.Unmarshal(frame[4:end], &f))
	m := f.ProtoReflect()
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	require.NotNil(t, kind, "a frame without a body")
	return m.Get(kind).Message().Interface()
}

// take reads the next frame, which has to be a T. A sender can ask meanwhile why a stream gets no credit: a test may be slow.
func take[T proto.Message](p *wirePeer) T {
	p.t.Helper()
	for {
		frame, err := p.readFrame()
		require.NoError(p.t, err)
		next := decodeFrame(p.t, frame)
		body, ok := next.(T)
		if asks, _ := next.(*wire.Ping); !ok && asks.GetHandle() != 0 {
			continue
		}
		require.True(p.t, ok, "not a %T: %v", *new(T), next)
		return body
	}
}

// ended reads until the connection ends, and returns the code of the Failure before that, if there was one.
func (p *wirePeer) ended() (code wire.Code, failed bool) {
	p.t.Helper()
	for {
		frame, err := p.readFrame()
		var timeout net.Error
		if errors.As(err, &timeout) {
			require.False(p.t, timeout.Timeout(), "the connection goes on")
		}
		if err != nil {
			return code, failed
		}
		if f, ok := decodeFrame(p.t, frame).(*wire.Failure); ok && !failed { // what is behind it is void
			code, failed = f.Code, true
		}
	}
}

// sync returns when the other side has taken every frame that was sent to it. What it sends meanwhile is dropped.
func (p *wirePeer) sync() {
	p.t.Helper()
	p.send(&wire.Ping{Id: 77})
	for {
		frame, err := p.readFrame()
		require.NoError(p.t, err)
		if pong, ok := decodeFrame(p.t, frame).(*wire.Pong); ok && pong.Id == 77 {
			return
		}
	}
}

// dialPeer connects to a listener as a sender.
func dialPeer(t *testing.T, address string) *wirePeer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	return newWirePeer(t, conn, err)
}

func greetedPeer(t *testing.T, address string) *wirePeer {
	t.Helper()
	p := dialPeer(t, address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Agent: "script"})
	welcome := take[*wire.Welcome](p)
	require.EqualValues(t, 1, welcome.Version)
	require.EqualValues(t, 1<<20, welcome.MaxMessage)
	require.EqualValues(t, 1<<20+64, welcome.MaxFrame)
	return p
}

// cut ends the connection without a word.
func (p *wirePeer) cut() { require.NoError(p.t, p.conn.Close()) }

func envelope(t testing.TB, payload string) []byte {
	t.Helper()
	data, err := proto.Marshal(&wire.Envelope{Uuid: "id of " + payload, Payload: []byte(payload)})
	require.NoError(t, err)
	return data
}

func receivePayload(t *testing.T, messages <-chan *message.Message, payload string) *message.Message {
	t.Helper()
	msg := receive(t, messages)
	require.Equal(t, payload, string(msg.Payload))
	require.Equal(t, "id of "+payload, msg.UUID)
	return msg
}
