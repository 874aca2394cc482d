package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"regexp"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// documentedFault finds a row of the document's tables of faults: what is done about it, and with which code.
func documentedFault(t *testing.T, row string) (outcome string, code wire.Code) {
	t.Helper()
	document, err := os.ReadFile(protocolDocument)
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + ` \| (\w+)(?: (\w+))?`).FindStringSubmatch(string(document))
	require.NotNil(t, found, "%s does not say what happens: %s", protocolDocument, row)
	if found[2] != "" {
		number, known := wire.Code_value["CODE_"+found[2]]
		require.True(t, known, found[2])
		code = wire.Code(number)
	}
	return found[1], code
}

// fault is what a sender can do wrong, by its row in the document. It gets a new connection.
type fault struct {
	row string
	do  func(p *wirePeer, address string)
}

// publishOf is the frame of a Publish with the given body.
func publishOf(body ...byte) []byte {
	return sealed(append([]byte{0x2a, byte(len(body))}, body...))
}

// faults need a listener with one topic, "a", that has a consumer.
func faults(t *testing.T) []fault { //nolint:funlen // a table
	m := envelope(t, "x")
	streams := uint64(0) // each gets one of its own
	flipped := func(body proto.Message) []byte {
		frame := sealed(payloadOf(t, body))
		frame[len(frame)-1] ^= 1
		return frame
	}
	hello := func(padding int) []byte {
		return sealed(payloadOf(t, &wire.Hello{Version: 1, MaxFrame: leastFrame, Token: make([]byte, padding)}))
	}
	const (
		twoBodies  = "frame with two bodies, or with anything else beside its body and the last field's checksum"
		openHandle = "Open with a handle that is open, or with handle 0"
	)
	full := 4096 - (len(hello(1000)) - 4 - 1000)
	raw := func(frame []byte) func(*wirePeer, string) {
		return func(p *wirePeer, _ string) { p.write(frame) }
	}
	greeted := func(frames ...[]byte) func(*wirePeer, string) {
		return func(p *wirePeer, _ string) {
			p.write(hello(full - 1)) // the largest there may be
			take[*wire.Welcome](p)
			p.write(bytes.Join(frames, nil))
		}
	}
	opened := func(publishes ...*wire.Publish) func(*wirePeer, string) {
		return func(p *wirePeer, _ string) {
			p.write(hello(0))
			take[*wire.Welcome](p)
			streams++
			s := p.opens(opening(func(o *wire.Open) { o.Stream = streams })).credited()
			for _, f := range publishes {
				f.Handle = s.handle
				s.send(f)
			}
		}
	}
	many := func(n int) [][]byte {
		out := make([][]byte, n)
		for i := range out {
			out[i] = m
		}
		return out
	}
	frame := func(body proto.Message) []byte { return sealed(payloadOf(t, body)) }
	return []fault{
		{"frame over 4,096 bytes before the Welcome", raw(hello(full + 1))},
		{"frame over max_frame", greeted(binary.BigEndian.AppendUint32(nil, 1<<20+65))},
		{"checksum wrong, or absent without TLS", greeted(flipped(&wire.Ping{}))},
		{"checksum wrong, or absent without TLS", greeted(framed(payloadOf(t, &wire.Ping{Id: 1})))},
		{"checksum wrong, or absent without TLS", raw(flipped(&wire.Hello{Version: 1, MaxFrame: leastFrame}))},
		{"first frame is no Hello", raw(frame(&wire.Ping{}))},
		{"Hello.version below 1", raw(frame(&wire.Hello{MaxFrame: leastFrame}))},
		{"Hello.max_frame below 65,600", raw(frame(&wire.Hello{Version: 1, MaxFrame: leastFrame - 1}))},
		{"frame that only the other side sends, or a second Hello", greeted(hello(0))},
		{"frame that only the other side sends, or a second Hello", greeted(frame(&wire.Welcome{Version: 1}))},
		{"frame that only the other side sends, or a second Hello", greeted(frame(&wire.Ack{Handle: 7, Next: 1}))},
		{"frame without a body, with an unknown one, or malformed", greeted(sealed(nil))},
		{"frame without a body, with an unknown one, or malformed", greeted(sealed([]byte{0x82, 0x02, 0x02, 0x08, 0x01}))},
		{"frame without a body, with an unknown one, or malformed", greeted(sealed([]byte{0xff, 0xff}))},
		{"Publish, Want or RejectSeen with a handle that is not open", greeted(frame(&wire.Publish{Handle: 7, First: 1, Messages: many(1)}))},
		{"Publish, Want or RejectSeen with a handle that is not open", greeted(frame(&wire.Want{Handle: 7}))},
		{"Publish, Want or RejectSeen with a handle that is not open", greeted(frame(&wire.RejectSeen{Handle: 7, Sequence: 1}))},
		{twoBodies, greeted(sealed(append(payloadOf(t, &wire.Ping{Id: 1}), payloadOf(t, &wire.Ping{Id: 2})...)))},
		{twoBodies, greeted(sealed(append(payloadOf(t, &wire.Ping{Id: 1}), 0x82, 1, 0)))},
		{twoBodies, greeted(sealed(append([]byte{trailerTag, 0, 0, 0, 0}, payloadOf(t, &wire.Ping{Id: 1})...)))},
		{openHandle, greeted(frame(opening(func(o *wire.Open) { o.Handle = 0 })))},
		{openHandle, func(p *wirePeer, address string) {
			opened()(p, address)
			p.send(opening(func(o *wire.Open) { o.Stream = 1 << 40 }))
		}},
		{"Publish beyond the credit", func(p *wirePeer, address string) { // in messages
			opened(&wire.Publish{First: 1, Messages: many(3)})(p, address)
			p.send(&wire.Want{Handle: 7, SeenMessages: 1 << 40}) // void
			p.send(&wire.Publish{Handle: 7, First: 4, Messages: many(4000)})
		}},
		{"Publish beyond the credit", opened(&wire.Publish{First: 1, Messages: [][]byte{make([]byte, 1<<20-1)}})}, // in bytes
		{"sequences missing without the gap flag", opened(&wire.Publish{First: 1, Messages: many(1)}, &wire.Publish{First: 3, Messages: many(1)})},
		{"sequence 0 or beyond 2^64−2", opened(&wire.Publish{First: 0, Messages: many(1)})},
		{"sequence 0 or beyond 2^64−2", opened(&wire.Publish{First: 1<<64 - 1, Flags: flagGap, Messages: many(1)})},
		{"Publish of no message or of more than 4,096", opened(&wire.Publish{First: 1})},
		{"Publish of no message or of more than 4,096", opened(&wire.Publish{First: 1, Messages: make([][]byte, 4097)})},
		{"Publish whose messages are not its last fields", greeted(publishOf(0x22, 0x01, 'x', 0x08, 0x07))},
	}
}

func TestProtocol_FaultsEndOnlyTheirConnection(t *testing.T) {
	var dials atomic.Int32
	h := newHouse(t, buffstreams.ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	sub := h.newSubscriber(t, nil)
	require.NoError(t, sub.SubscribeInitialize(h.topic("a")))
	others := subscribe(t, sub, h.topic("another"))
	pub := h.newPublisher(t, nil)
	for _, f := range faults(t) {
		t.Run(f.row, func(t *testing.T) {
			outcome, code := documentedFault(t, f.row)
			p := dialPeer(t, h.address)
			f.do(p, h.address)
			got, failed := p.ended()
			require.Equal(t, outcome == "Failure", failed)
			require.Equal(t, code, got)
			require.NoError(t, pub.Publish(h.topic("another"), newMessage(f.row)))
			require.Equal(t, []string{f.row}, receiveAcked(t, others, 1))
		})
	}
	require.EqualValues(t, 1, dials.Load(), "the other connection was cut")
}

func TestProtocol_FaultsThatTheConnectionSurvives(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxMessageSize: 1000}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	p := dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 2, MaxFrame: leastFrame}) // of the future: it is answered with the version that both know
	require.EqualValues(t, 1, take[*wire.Welcome](p).Version)
	s := p.opens(opening(func(o *wire.Open) { o.WantBytes = 5000 }))
	s.until(func() bool { return s.bytes >= 5000 })

	outcome, code := documentedFault(t, "message over max_message in a frame within max_frame")
	require.Equal(t, "Reject", outcome)
	s.publish(1, false, envelope(t, "1"), make([]byte, 1001), envelope(t, "3"))
	receivePayload(t, messages, "1").Ack()
	receivePayload(t, messages, "3").Ack()
	s.until(func() bool { return len(s.rejects) > 0 && s.settled[1] && s.settled[3] })
	require.Equal(t, code, s.rejects[0].Code)
	require.EqualValues(t, 2, s.rejects[0].Sequence)

	for row, body := range map[string]proto.Message{
		"Release of a stream that is not open or not settled": &wire.Release{Handle: s.handle}, // 2 is not confirmed
		"RejectSeen of a sequence that was not rejected":      &wire.RejectSeen{Handle: s.handle, Sequence: 1},
		"Want with another seen_messages than the last grant": &wire.Want{Handle: s.handle, SeenMessages: 1, Messages: 1},
		"Pong that nothing asked for":                         &wire.Pong{Id: 9},
	} {
		outcome, _ := documentedFault(t, row)
		require.Equal(t, "ignored", outcome)
		s.send(body)
	}
	s.publish(4, false, envelope(t, "4"))
	receivePayload(t, messages, "4").Ack()
	s.until(func() bool { return s.settled[4] })
}
