package session

import (
	"maps"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Inbound is the receiving side of one stream. It outlives connections: what it remembers is what makes a resend after a
// reconnect no duplicate. It is not safe for concurrent use.
type Inbound struct {
	next     uint64 // lowest sequence not received
	settled  Watermark
	rejected map[uint64]*PeerError // until the sender has seen it

	handle  uint64 // on the current connection
	granted amount // absolute, counted from Attach
	got     amount
	fresh   []Range // settled and not told yet
	told    uint64  // next, as the sender knows it
	tell    bool    // a grant is not told yet
}

// amount is messages and their encoded bytes.
type amount struct{ messages, bytes uint64 }

// NewInbound returns a stream of which everything below base is settled.
func NewInbound(base uint64) *Inbound {
	return &Inbound{next: max(base, 1), settled: NewWatermark(base)}
}

// RestoreInbound returns a stream of which the given ranges, and everything below base, are settled. What was received
// and not settled is gone: the sender has to send it again.
func RestoreInbound(settled []Range, base uint64) *Inbound {
	in := NewInbound(base)
	for _, r := range settled {
		in.settled.Add(r.First, r.Last)
	}
	in.next = in.settled.Next()
	return in
}

// Settled returns every settled sequence, and those in more, as ranges.
func (in *Inbound) Settled(more []Range) (ranges []Range) {
	all := in.settled.Clone()
	for _, r := range more {
		all.Add(r.First, r.Last)
	}
	pairs := all.AppendPairs(nil, 1)
	for i := 0; i < len(pairs); i += 2 {
		ranges = append(ranges, Range{First: pairs[i], Last: pairs[i+1]})
	}
	return ranges
}

// Next is the lowest sequence not received.
func (in *Inbound) Next() uint64 { return in.next }

// Idle tells whether every message received is settled and the sender knows of every rejection. What it remembers from an
// earlier life as settled can reach beyond what it has received in this one.
func (in *Inbound) Idle() bool { return in.settled.Next() >= in.next && len(in.rejected) == 0 }

// Attach binds the stream to a new connection, on which the sender has settled everything below base.
// It returns what Opened has to say, and the rejections to repeat.
func (in *Inbound) Attach(handle, base uint64) (*wire.Opened, []*wire.Reject) {
	if base > in.next { // closed by the sender: the messages were settled elsewhere
		in.settled.Add(in.next, base-1)
		in.next = base
	}
	in.handle, in.told = handle, in.next
	in.granted, in.got, in.fresh, in.tell = amount{}, amount{}, nil, false
	var rejects []*wire.Reject
	for _, seq := range slices.Sorted(maps.Keys(in.rejected)) {
		rejects = append(rejects, reject(handle, seq, in.rejected[seq]))
	}
	pairs := in.settled.AppendPairs(nil, max(base, 1))
	for i := 2 * maxRanges; i < len(pairs); i += 2 { // the rest goes out as acks
		in.fresh = append(in.fresh, Range{First: pairs[i], Last: pairs[i+1]})
	}
	return &wire.Opened{Handle: handle, Next: in.next, Settled: pairs[:min(len(pairs), 2*maxRanges)]}, rejects
}

// Detach takes the stream off its connection.
func (in *Inbound) Detach() { in.granted, in.got, in.tell = amount{}, amount{}, false }

// maxRanges is how many ranges of settled messages one frame carries, so that it stays below MinFrame.
const maxRanges = 2048

func reject(handle, seq uint64, err *PeerError) *wire.Reject {
	return &wire.Reject{Handle: handle, Sequence: seq, Code: err.code, Reason: err.Reason}
}

// Accept takes a Publish. It returns the messages that were not received before, the sequence of the first of them, and
// how much of the credit went to duplicates.
func (in *Inbound) Accept(f *PublishFrame) (fresh [][]byte, first uint64, dup Amount, err error) {
	count := uint64(len(f.Messages))
	if count > in.granted.messages-in.got.messages || uint64(f.Bytes) > in.granted.bytes-in.got.bytes {
		return nil, 0, dup, violation("more was sent than credit was given")
	}
	if f.First == 0 || f.First+count < f.First {
		return nil, 0, dup, violation("sequence out of range")
	}
	if f.First > in.next {
		if !f.Gap {
			return nil, 0, dup, violation("publish at %d, expected %d", f.First, in.next)
		}
		in.settled.Add(in.next, f.First-1)
		in.next = f.First
	}
	if from, end := max(f.First, in.next), f.First+count; from < end {
		if free, last := in.settled.Hole(from); free > from || last < end-1 {
			return nil, 0, dup, violation("publish of %d to %d, of which some is settled", f.First, end-1)
		}
	}
	in.got.messages += count
	in.got.bytes += uint64(f.Bytes)
	skip := min(in.next-f.First, count)
	for _, m := range f.Messages[:skip] {
		dup.Messages++
		dup.Bytes += EncodedSize(len(m))
	}
	first = f.First + skip
	in.next = max(in.next, f.First+count)
	return f.Messages[skip:], first, dup, nil
}

// Unsettled is the number of messages received and not settled.
func (in *Inbound) Unsettled() (n int) {
	for seq := in.settled.Next(); seq < in.next; {
		first, last := in.settled.Hole(seq)
		if first >= in.next {
			break
		}
		n += int(min(last, in.next-1) - first + 1)
		if last >= in.next {
			break
		}
		seq = last + 1
	}
	return n - len(in.rejected)
}

// Rejected is the number of rejections that the sender has not confirmed.
func (in *Inbound) Rejected() int { return len(in.rejected) }

// Settle marks the messages from first to last as handled.
func (in *Inbound) Settle(first, last uint64) {
	if in.settled.Add(first, last) == 0 {
		return
	}
	if n := len(in.fresh); n > 0 && in.fresh[n-1].Last+1 == first {
		in.fresh[n-1].Last = last
		return
	}
	in.fresh = append(in.fresh, Range{First: first, Last: last})
}

// Reject marks a message as settled without being handled, and returns the frame that says so.
func (in *Inbound) Reject(seq uint64, err *PeerError) *wire.Reject {
	if in.rejected == nil {
		in.rejected = map[uint64]*PeerError{}
	}
	in.rejected[seq] = err
	return reject(in.handle, seq, err)
}

// Refuse returns the frame that ends the stream for good: a Reject without a sequence.
func (in *Inbound) Refuse(err *PeerError) *wire.Reject { return reject(in.handle, 0, err) }

// RejectSeen forgets a rejection that the sender has seen.
func (in *Inbound) RejectSeen(seq uint64) {
	if _, ok := in.rejected[seq]; ok {
		delete(in.rejected, seq)
		in.settled.Add(seq, seq)
	}
}

// Outstanding is the credit that was granted and not used.
func (in *Inbound) Outstanding() Amount {
	return Amount{Messages: int(in.granted.messages - in.got.messages), Bytes: int(in.granted.bytes - in.got.bytes)}
}

// Grant gives credit.
func (in *Inbound) Grant(a Amount) {
	if a.Messages <= 0 {
		return
	}
	in.granted.messages += uint64(a.Messages)
	in.granted.bytes += uint64(a.Bytes)
	in.tell = true
}

// Return takes the unused credit back, as a Want asks for. ok is false when a grant crossed the Want on the wire.
func (in *Inbound) Return(seen uint64) (a Amount, ok bool) {
	if seen != in.granted.messages {
		return a, false
	}
	a = in.Outstanding()
	in.granted = in.got
	return a, true
}

// Ack returns what the sender has not been told yet; ok is false when there is nothing.
func (in *Inbound) Ack() (a AckFrame, ok bool) {
	if in.told == in.next && len(in.fresh) == 0 && !in.tell {
		return a, false
	}
	a.Handle = in.handle
	if in.told != in.next {
		a.Next, in.told = in.next, in.next
	}
	n := min(len(in.fresh), maxRanges)
	for _, r := range in.fresh[:n] {
		a.Settled = append(a.Settled, r.First, r.Last)
	}
	in.fresh = in.fresh[:copy(in.fresh, in.fresh[n:])]
	if in.tell && len(in.fresh) == 0 { // what frees room is told before the room is given
		a.Messages, a.Bytes, in.tell = in.granted.messages, in.granted.bytes, false
	}
	return a, true
}
