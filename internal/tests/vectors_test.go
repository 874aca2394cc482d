package tests

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// The vectors of testdata/vectors are for implementations in any language. The files say how they are read.

type vector struct {
	Name     string
	Messages []int
	Result   string
	Steps    []struct{ Send, Expect string }
}

func readVectors(t *testing.T, name string) []vector {
	t.Helper()
	data, err := os.ReadFile("../../testdata/vectors/" + name)
	require.NoError(t, err)
	var file struct{ Vectors []vector }
	require.NoError(t, json.Unmarshal(data, &file))
	require.NotEmpty(t, file.Vectors)
	return file.Vectors
}

// vectorPeer is the side of a connection that a vector describes.
type vectorPeer struct {
	*wirePeer
	acked  map[uint64]bool
	credit bool
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
			for i := 0; i+1 < len(f.Settled); i += 2 {
				for seq := f.Settled[i]; seq <= f.Settled[i+1]; seq++ {
					p.acked[seq] = true
				}
			}
			return "Ack", false
		case *wire.Want, *wire.Release:
		case *wire.Opened:
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
		if got == "Ack" && !ended {
			continue
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

func TestVectors_Listener(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	go ackAll(messages)
	for _, v := range readVectors(t, "listener.json") {
		t.Run(v.Name, func(t *testing.T) {
			p := &vectorPeer{wirePeer: dialPeer(t, h.address), acked: map[uint64]bool{}}
			for _, step := range v.Steps {
				if step.Send != "" {
					p.bytes(step.Send)
				} else {
					p.expect(step.Expect)
				}
			}
		})
	}
}

func TestVectors_Sender(t *testing.T) {
	results := map[string]error{
		"never sent": buffstreams.ErrNeverSent, "limit": buffstreams.ErrLimit, "fenced": buffstreams.ErrFenced,
		"failed": buffstreams.ErrHandlingFailed,
	}
	for _, v := range readVectors(t, "sender.json") {
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
					p = &vectorPeer{wirePeer: newWirePeer(t, conn, err), acked: map[uint64]bool{}}
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
			default:
				require.ErrorIs(t, requireResult(t, result), results[v.Result])
				require.Error(t, results[v.Result])
			}
		})
	}
}
