package tests

import (
	"bytes"
	"context"
	"encoding/hex"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// The peers of protocol_*_test.go are written from docs/protocol.md: of the project they share only proto/ with what
// they test. protocol_peer_test.go has what both sides need, the others a sender, a receiver, the faults that each side
// must notice, and, here, the document's own bytes.

const (
	protocolDocument = "../../docs/protocol.md"
	leastFrame       = 65_600 // what each side must accept
	trailerSize      = 5
	trailerTag       = 0x7d
)

// Flags of a Publish.
const (
	flagGap    = 1
	flagAgain  = 4
	flagPrompt = 2
)

// documentBlocks are the contents of the document's fenced blocks of one kind.
func documentBlocks(t *testing.T, kind string) []string {
	t.Helper()
	document, err := os.ReadFile(protocolDocument)
	require.NoError(t, err)
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(string(document), -1) {
		blocks = append(blocks, found[1])
	}
	require.NotEmpty(t, blocks, kind)
	return blocks
}

// documented is a frame that the document spells out.
type documented struct {
	sender bool
	name   string
	bytes  []byte
}

// documentedFrames reads lines of "side: Name ...", each followed by the frame in hex.
func documentedFrames(t *testing.T, kind string) (frames []documented) {
	t.Helper()
	for line := range strings.Lines(documentBlocks(t, kind)[0]) {
		if side, rest, ok := strings.Cut(line, ":"); ok {
			frames = append(frames, documented{sender: side == "sender", name: strings.TrimSpace(strings.SplitN(rest, "{", 2)[0])})
			continue
		}
		data, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		require.NoError(t, err)
		f := &frames[len(frames)-1]
		f.bytes = append(f.bytes, data...)
	}
	for _, f := range frames {
		body := decodeFrame(t, f.bytes)
		require.EqualValues(t, f.name, body.ProtoReflect().Descriptor().Name())
	}
	return frames
}

func TestProtocol_DocumentedSessionWithTheListener(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("orders"))
	p := dialPeer(t, h.address)
	for i, f := range documentedFrames(t, "session") {
		if f.sender {
			p.write(f.bytes)
			continue
		}
		got, err := p.readFrame()
		require.NoError(t, err)
		require.Equal(t, hex.EncodeToString(f.bytes), hex.EncodeToString(got), "frame %d, %s", i+1, f.name)
		if ack, ok := decodeFrame(t, got).(*wire.Ack); ok && ack.Next == 2 {
			msg := receive(t, messages)
			require.Equal(t, "m-1", msg.UUID)
			require.Equal(t, "hello", string(msg.Payload))
			msg.Ack()
		}
	}

	closed := later(func() error {
		return h.manager.CloseListener(context.Background(), h.address)
	})
	require.NotEmpty(t, take[*wire.Goaway](p).Reason)
	for _, id := range []uint64{1, 2} { // what drains, and what ends: it waits for each Pong
		require.Equal(t, id, take[*wire.Ping](p).Id)
		p.send(&wire.Pong{Id: id})
	}
	_, err := p.readFrame()
	require.Error(t, err)
	require.NoError(t, requireResult(t, closed))
}

// withThePublisher plays the document's receiver to a publisher, which has to write the document's bytes.
func withThePublisher(t *testing.T, frames []documented, messages ...*message.Message) {
	t.Helper()
	ln, address := listenPeer(t)
	pub := senderOf(t, buffstreams.AckedConfig{MoveAfter: -1}, buffstreams.ConfirmHandled)
	result := later(func() error {
		return pub.Publish(strings.TrimSuffix(address, "a")+"orders", messages...)
	})
	conn, err := ln.Accept()
	p := newWirePeer(t, conn, err)
	for i, f := range frames {
		if !f.sender {
			p.write(f.bytes)
			continue
		}
		got, err := p.readFrame()
		require.NoError(t, err)
		if open, ok := decodeFrame(t, got).(*wire.Open); ok { // random: the document's stand in for them
			for _, field := range [][]byte{open.Publisher, open.Secret} {
				at := bytes.Index(got, field)
				require.Positive(t, at)
				copy(got[at:at+16], f.bytes[at:at+16])
			}
			got = sealed(got[4 : len(got)-trailerSize])
		}
		require.Equal(t, hex.EncodeToString(f.bytes), hex.EncodeToString(got), "frame %d, %s", i+1, f.name)
	}
	require.NoError(t, requireResult(t, result))
}

func TestProtocol_DocumentedSessionWithThePublisher(t *testing.T) {
	withThePublisher(t, documentedFrames(t, "session"), message.NewMessage("m-1", []byte("hello")))
}

func TestProtocol_DocumentedCredit(t *testing.T) {
	greeting := documentedFrames(t, "session")[:2]
	end := documented{bytes: sealed(payloadOf(t, &wire.Ack{Handle: 1, Next: 4, Settled: []uint64{1, 3}}))}
	var messages []*message.Message
	for _, id := range []string{"m-1", "m-2", "m-3"} {
		messages = append(messages, message.NewMessage(id, []byte("hello")))
	}
	withThePublisher(t, append(append(greeting, documentedFrames(t, "credit")...), end), messages...)
}

func TestProtocol_DocumentedChecksum(t *testing.T) {
	example := documentedFrames(t, "checksum")
	require.Len(t, example, 1)
	require.Equal(t, sealed(payloadOf(t, &wire.Ping{Id: 7})), example[0].bytes)
	require.EqualValues(t, 0xe3069283, crc32.Checksum([]byte("123456789"), crc32.MakeTable(crc32.Castagnoli)))
}
