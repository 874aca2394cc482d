package session

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// FuzzDecode feeds payloads to Decode. What it takes, the generated code must take as well and read in the same way,
// and it must survive being encoded again.
func FuzzDecode(f *testing.F) {
	for _, p := range everyPayload(f, encoder(f, false)) {
		if len(p) < 2000 {
			f.Add(p)
		}
	}
	e := encoder(f, true)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := e.Verify(data); err == nil && len(data) < crcSize {
			t.Fatal("opened without a checksum")
		}
		got, err := Decode(data)
		if err != nil {
			return
		}
		var frame wire.Frame
		if err := proto.Unmarshal(data, &frame); err != nil {
			t.Fatalf("generated code refuses what Decode took: %v", err)
		}
		switch g := got.(type) {
		case *PublishFrame:
			p := &wire.Publish{Handle: g.Handle, First: g.First, Flags: flagsOf(g), Messages: g.Messages}
			frame.GetPublish().Flags &= flagGap | flagAckNow // others are not ours
			requireSame(t, p, frame.GetPublish())
			out, err := e.AppendPublish(nil, segmentOf(p))
			if err != nil {
				t.Skip("larger than a frame may be")
			}
			again, err := e.Verify(payload(t, e, out))
			if err != nil {
				t.Fatal(err)
			}
			requirePublish(t, p, again)
		case *AckFrame:
			a := &wire.Ack{
				Handle: g.Handle, Next: g.Next, Settled: g.Settled, CreditMessages: g.Messages, CreditBytes: g.Bytes,
			}
			requireSame(t, a, frame.GetAck())
			out, err := e.AppendAck(nil, *g)
			if err != nil {
				t.Skip("larger than a frame may be")
			}
			again, err := e.Verify(payload(t, e, out))
			if err != nil {
				t.Fatal(err)
			}
			requireAck(t, a, again)
		case proto.Message:
			if frame.Body == nil {
				t.Fatalf("generated code sees no body in what Decode took for %T", g)
			}
		default:
			t.Fatalf("%T", g)
		}
	})
}

// requireSame compares without the fields that neither side knows.
func requireSame(t *testing.T, want, got proto.Message) {
	t.Helper()
	got.ProtoReflect().SetUnknown(nil)
	if !proto.Equal(want, got) {
		t.Fatalf("decoded %v, generated code reads %v", want, got)
	}
}
