package tests

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// The vectors of testdata/vectors are for implementations in any language. The files say how they are read. Those of a
// directory named after a version are what a released version kept to: its peers are out there, so they hold for ever.

// eachVersion runs a test with the directories of the present vectors and of those of each release.
func eachVersion(t *testing.T, test func(t *testing.T, dir string)) {
	const present = "../../testdata/vectors"
	released, err := filepath.Glob(present + "/v*")
	require.NoError(t, err)
	require.NotEmpty(t, released)
	for _, dir := range append([]string{present}, released...) {
		t.Run(filepath.Base(dir), func(t *testing.T) { test(t, dir) })
	}
}

type vector struct {
	Name     string
	Messages []int
	Result   string
	Steps    []struct{ Send, Expect string }
}

func readVectors(t *testing.T, file string) []vector {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var contents struct{ Vectors []vector }
	require.NoError(t, json.Unmarshal(data, &contents))
	require.NotEmpty(t, contents.Vectors)
	return contents.Vectors
}

// vectorPeer is the side of a connection that a vector describes.
type vectorPeer struct {
	*wirePeer
	acked  map[uint64]bool
	credit bool
	at     uint64 // the last Opened.next
	// What may come before the end of a connection.
	farewell string
}

func (p *vectorPeer) settle(pairs []uint64) {
	for i := 0; i+1 < len(pairs); i += 2 {
		for seq := pairs[i]; seq <= pairs[i+1]; seq++ {
			p.acked[seq] = true
		}
	}
}

// code is the name of a code without its prefix, with a space before it; empty for none.
func codeText(c wire.Code) string {
	if c == 0 {
		return ""
	}
	return " " + strings.TrimPrefix(c.String(), "CODE_")
}

// next reads the next frame that a vector speaks of, and returns its text. ended says that the connection has.
func (p *vectorPeer) next() (text string, ended bool) {
	p.t.Helper()
	for {
		frame, err := p.readFrame()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			require.Fail(p.t, "nothing comes, and the connection goes on")
		}
		if err != nil {
			return "closes", true
		}
		switch f := decodeFrame(p.t, frame).(type) {
		case *wire.Ack:
			p.credit = p.credit || f.CreditMessages > 0
			p.settle(f.Settled)
			return "Ack", false
		case *wire.Want, *wire.Release:
		case *wire.Ping:
			if f.Handle == 0 { // else a sender asks, whenever a stream has waited for a second, why it gets no credit
				return "Ping", false
			}
		case *wire.Opened:
			p.at = f.Next
			p.settle(f.Settled)
			return "Opened" + codeText(f.Code), false
		case *wire.Reject:
			return "Reject" + codeText(f.Code), false
		case *wire.Failure:
			return "Failure" + codeText(f.Code), false
		case *wire.Publish:
			text := "Publish "
			if f.Flags&flagGap != 0 {
				text += "gap "
			}
			if f.Flags&flagAgain != 0 {
				text += "again "
			}
			return fmt.Sprint(text, f.First, " ", f.First+uint64(len(f.Messages))-1), false
		case proto.Message:
			return string(f.ProtoReflect().Descriptor().Name()), false
		}
	}
}

// expect reads until what a vector expects has come. Only Acks may come before it.
func (p *vectorPeer) expect(want string) {
	p.t.Helper()
	for {
		var seq uint64
		if _, err := fmt.Sscanf(want, "settled %d", &seq); err == nil && p.acked[seq] || want == "credit" && p.credit {
			return
		}
		got, ended := p.next()
		if got == "Ack" && !ended || want == "closes" && got == p.farewell {
			continue
		}
		if at := strings.TrimPrefix(want, "Opened next "); at != want && got == "Opened" {
			got = fmt.Sprint("Opened next ", p.at)
		}
		var first, last, end uint64
		if n, _ := fmt.Sscanf(want, "Publish %d %d", &first, &end); n == 2 { // it may come in several frames
			if _, err := fmt.Sscanf(got, fmt.Sprintf("Publish %d %%d", first), &last); err == nil && last < end {
				want = fmt.Sprintf("Publish %d %d", last+1, end)
				continue
			}
		}
		require.Equal(p.t, want, got)
		return
	}
}

func (p *vectorPeer) bytes(text string) {
	p.t.Helper()
	data, err := hex.DecodeString(text)
	require.NoError(p.t, err)
	p.write(data)
}

// frameVectors are testdata/vectors/frames.json.
type frameVectors struct {
	Frames []struct {
		Name, Side, Kind, Hex string
		Fields                json.RawMessage
	}
	Envelopes []struct {
		Name, Hex, UUID string
		Payload         []byte
		Metadata        map[string][]byte
		Invalid         bool
	}
}

func readFrameVectors(t *testing.T, dir string) (file frameVectors) {
	t.Helper()
	data, err := os.ReadFile(dir + "/frames.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &file))
	require.NotEmpty(t, file.Frames)
	require.NotEmpty(t, file.Envelopes)
	return file
}

func TestVectors_Frames(t *testing.T) { eachVersion(t, testFrameVectors) }

func testFrameVectors(t *testing.T, dir string) {
	bodies := (&wire.Frame{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	kinds := map[string]bool{}
	for _, v := range readFrameVectors(t, dir).Frames {
		kinds[v.Kind] = true
		var field protoreflect.FieldDescriptor
		for i := range bodies.Len() {
			if string(bodies.Get(i).Message().Name()) == v.Kind {
				field = bodies.Get(i)
			}
		}
		require.NotNil(t, field, v.Kind)
		frame := &wire.Frame{}
		body := frame.ProtoReflect().NewField(field)
		require.NoError(t, protojson.Unmarshal(v.Fields, body.Message().Interface()), v.Name)
		frame.ProtoReflect().Set(field, body)
		payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(frame)
		require.NoError(t, err)
		require.Equal(t, v.Hex, hex.EncodeToString(sealed(payload)), v.Name)
	}
	if filepath.Base(dir) == "vectors" {
		require.Len(t, kinds, bodies.Len(), "each kind has a vector")
	}
}

func TestVectors_Envelopes(t *testing.T) { eachVersion(t, testEnvelopeVectors) }

func testEnvelopeVectors(t *testing.T, dir string) {
	for _, v := range readFrameVectors(t, dir).Envelopes {
		data, err := hex.DecodeString(v.Hex)
		require.NoError(t, err)
		msg, err := (buffstreams.EnvelopeMarshaler{}).Unmarshal("", data)
		if v.Invalid {
			require.Error(t, err, v.Name)
			continue
		}
		require.NoError(t, err, v.Name)
		require.Equal(t, v.UUID, msg.UUID, v.Name)
		require.Equal(t, string(v.Payload), string(msg.Payload), v.Name)
		require.Len(t, msg.Metadata, len(v.Metadata), v.Name)
		for key, value := range v.Metadata {
			require.Equal(t, string(value), msg.Metadata[key], v.Name)
		}
	}
}

// The document spells out the same frames as the data.
func TestProtocol_DocumentedFrames(t *testing.T) {
	vectors, documented := readFrameVectors(t, "../../testdata/vectors").Frames, documentedFrames(t, "frames")
	require.Len(t, documented, len(vectors))
	for i, f := range documented {
		require.Equal(t, vectors[i].Hex, hex.EncodeToString(f.bytes), f.name)
		require.Equal(t, vectors[i].Side == "sender", f.sender, f.name)
	}
}

func TestVectors_Listener(t *testing.T) { eachVersion(t, testListenerVectors) }

func testListenerVectors(t *testing.T, dir string) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	go ackAll(messages)
	for _, v := range readVectors(t, dir+"/listener.json") {
		t.Run(v.Name, func(t *testing.T) {
			dial := func() *vectorPeer { return &vectorPeer{wirePeer: dialPeer(t, h.address), acked: map[uint64]bool{}} }
			p := dial()
			for _, step := range v.Steps {
				switch {
				case step.Send == "cut":
					p.cut()
					p = dial()
				case step.Send != "":
					p.bytes(step.Send)
				default:
					p.expect(step.Expect)
				}
			}
		})
	}
}

func TestVectors_Sender(t *testing.T) {
	t.Parallel()
	eachVersion(t, testSenderVectors)
}

func testSenderVectors(t *testing.T, dir string) {
	results := map[string]error{
		"never sent": buffstreams.ErrNeverSent, "limit": buffstreams.ErrLimit, "fenced": buffstreams.ErrFenced,
		"failed": buffstreams.ErrHandlingFailed, "gone": buffstreams.ErrTopicGone,
	}
	for _, v := range readVectors(t, dir+"/sender.json") {
		t.Run(v.Name, func(t *testing.T) {
			ln, topic := listenPeer(t)
			pub := senderOf(t, buffstreams.AckedConfig{}, buffstreams.ConfirmHandled)
			msgs := newMessages(len(v.Messages))
			for i, size := range v.Messages {
				msgs[i].Payload = make([]byte, size)
			}
			result := later(func() error { return pub.Publish(topic, msgs...) })
			var p *vectorPeer
			for _, step := range v.Steps {
				if p == nil {
					conn, err := ln.Accept()
					p = &vectorPeer{wirePeer: newWirePeer(t, conn, err), acked: map[uint64]bool{}, farewell: "Failure PROTOCOL"}
				}
				switch {
				case step.Send == "cut":
					p.cut()
					p = nil
				case step.Send != "":
					p.bytes(step.Send)
				default:
					p.expect(step.Expect)
				}
			}
			switch v.Result {
			case "":
				select {
				case err := <-result:
					require.Fail(t, "the call has returned", "%v", err)
				case <-time.After(20 * time.Millisecond):
				}
			case "ok":
				require.NoError(t, requireResult(t, result))
			case "any":
			case "refused":
				var refused *buffstreams.PeerError
				require.ErrorAs(t, requireResult(t, result), &refused)
			default:
				require.ErrorIs(t, requireResult(t, result), results[v.Result])
				require.Error(t, results[v.Result])
			}
		})
	}
}
