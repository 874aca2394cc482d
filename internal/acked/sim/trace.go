package sim

import (
	"fmt"
	"hash/crc64"
	"math/rand/v2"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// dice is the seed's randomness.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0x5eed))} }

// n returns 0 to k-1.
func (d dice) n(k int) int { return d.IntN(k) }

// between returns lo to hi.
func (d dice) between(lo, hi int) int { return lo + d.IntN(hi-lo+1) }

// chance is true so many times in a thousand.
func (d dice) chance(permille int) bool { return d.IntN(1000) < permille }

func (d dice) bytes16() (b [16]byte) {
	for i := range b {
		b[i] = byte(d.Uint32())
	}
	return b
}

const traced = 80 // steps that a violation tells of

var crcTable = crc64.MakeTable(crc64.ECMA)

// trace keeps a hash of all that happened, and the end of it in words.
type trace struct {
	sum  uint64
	last [traced]event
	n    int
}

type event struct {
	step       int
	what, kind string
	a, b, c    int
}

func (e event) String() string {
	return fmt.Sprintf("%6d %-20s %d %d %d", e.step, e.what+e.kind, e.a, e.b, e.c)
}

func (t *trace) add(step int, what, kind string, a, b, c int) {
	t.last[t.n%traced] = event{step, what, kind, a, b, c}
	t.n++
	for _, v := range [...]int{step, len(kind), int(kind[0]), a, b, c} {
		t.sum = (t.sum ^ uint64(v)) * 0x9e3779b97f4a7c15
		t.sum ^= t.sum >> 29
	}
}

// wire adds bytes that were written.
func (t *trace) wire(b []byte) { t.sum = crc64.Update(t.sum, crcTable, b) }

func (t *trace) tail() (lines []string) {
	for i := max(0, t.n-traced); i < t.n; i++ {
		lines = append(lines, t.last[i%traced].String())
	}
	return lines
}

// noteFrame adds a frame to the trace.
func (c *conn) noteFrame(what string, frame any) {
	kind, a, b := "control", 0, 0
	switch f := frame.(type) {
	case *session.PublishFrame:
		kind, a, b = "publish", int(f.First), len(f.Messages)
	case *session.AckFrame:
		kind, a, b = "ack", int(f.Next), int(f.Messages)
		if len(f.Settled) > 0 {
			kind, b = "ack, settled", int(f.Settled[0])
		}
	case *wire.Open:
		kind, a, b = "open", int(f.Base), int(f.Epoch)
	case *wire.Opened:
		kind, a, b = "opened", int(f.Next), int(f.Code)
	case *wire.Want:
		kind, a, b = "want", int(f.Messages), int(f.SeenMessages)
	case *wire.Reject:
		kind, a, b = "reject", int(f.Sequence), int(f.Code)
	case *wire.RejectSeen:
		kind, a, b = "rejectseen", int(f.Sequence), 0
	case *wire.Release:
		kind, a, b = "release", int(f.Handle), 0
	}
	c.w.trace.add(c.w.step, what, kind, c.id, a, b)
}
