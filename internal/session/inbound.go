package session

import (
	"maps"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Inbound is the receiving side of one stream: what was received, what of it is settled, and the sender's credit. It
// outlives connections, so that it recognises what a sender sends again. It does not keep the messages. It is not safe
// for concurrent use.
type Inbound struct {
	next     uint64 // lowest sequence not received
	settled  Watermark
	rejected map[uint64]*PeerError // until the sender has confirmed it

	// The current connection.
	handle       uint64
	credit       credit  // counted from Attach
	newlySettled []Range // not acknowledged yet
	ackedNext    uint64  // the last Next that was acknowledged
	grantPending bool    // credit was granted and not sent yet
}

// NewInbound returns a stream with everything below base settled.
func NewInbound(base uint64) *Inbound {
	return &Inbound{next: max(base, 1), settled: NewWatermark(base)}
}

// RestoreInbound returns a stream with the given ranges and everything below base settled, as after a restart: what was
// received and not settled has to be sent again.
func RestoreInbound(settled []Range, base uint64) *Inbound {
	in := NewInbound(base)
	for _, r := range settled {
		in.settled.Add(r.First, r.Last)
	}
	in.next = in.settled.Next()
	return in
}

// Settled returns the settled sequences together with those in more.
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

// Idle tells whether every message received is settled, and every rejection confirmed by the sender. A restored stream
// can have settled messages beyond next.
func (in *Inbound) Idle() bool { return in.settled.Next() >= in.next && len(in.rejected) == 0 }

// Attach binds the stream to a new connection, where the sender has settled everything below base. It returns the
// frames to answer with: Opened, and the rejections that the sender has not confirmed.
func (in *Inbound) Attach(handle, base uint64) (*wire.Opened, []*wire.Reject) {
	if base > in.next { // the messages between were settled elsewhere
		in.settled.Add(in.next, base-1)
		in.next = base
	}
	in.handle, in.ackedNext = handle, in.next
	in.credit, in.newlySettled, in.grantPending = credit{}, nil, false
	var rejects []*wire.Reject
	for _, seq := range slices.Sorted(maps.Keys(in.rejected)) {
		rejects = append(rejects, reject(handle, seq, in.rejected[seq]))
	}
	pairs := in.settled.AppendPairs(nil, max(base, 1))
	for i := 2 * MaxRanges; i < len(pairs); i += 2 { // the rest follows in Acks
		in.newlySettled = append(in.newlySettled, Range{First: pairs[i], Last: pairs[i+1]})
	}
	return &wire.Opened{Handle: handle, Next: in.next, Settled: pairs[:min(len(pairs), 2*MaxRanges)]}, rejects
}

// Detach ends the stream's binding to its connection. Its credit is void: read Outstanding before.
func (in *Inbound) Detach() { in.credit, in.grantPending = credit{}, false }

// DropCredit voids the credit that was granted: read Outstanding before.
func (in *Inbound) DropCredit() { in.credit.dropUnused(); in.grantPending = false }

// SettledPairs is what is settled, as pairs of first and last.
func (in *Inbound) SettledPairs() []uint64 { return in.settled.AppendPairs(nil, 1) }

// MaxRanges is how many settled ranges one frame carries at most, so that it stays below MinFrame.
const MaxRanges = 2048

func reject(handle, seq uint64, err *PeerError) *wire.Reject {
	return &wire.Reject{Handle: handle, Sequence: seq, Code: err.code, Reason: err.Reason}
}

// Accept applies a Publish. It returns the messages that were not received before, the sequence of the first of them,
// and how much of the credit duplicates have used. An error is a *ProtocolError.
func (in *Inbound) Accept(f *PublishFrame) (fresh [][]byte, first uint64, dup Amount, err error) {
	count := uint64(len(f.Messages))
	if messages, bytes := in.credit.available(); count > messages || uint64(f.Bytes) > bytes {
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
	in.credit.usedMessages += count
	in.credit.usedBytes += uint64(f.Bytes)
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
	for first, last := range in.settled.Holes(1, in.next) {
		n += int(last - first + 1)
	}
	return n - len(in.rejected)
}

// Rejected is the number of rejections that the sender has not confirmed.
func (in *Inbound) Rejected() int { return len(in.rejected) }

// Settle marks the messages from first to last as handled, for the next Ack.
func (in *Inbound) Settle(first, last uint64) {
	if in.settled.Add(first, last) == 0 {
		return
	}
	if n := len(in.newlySettled); n > 0 && in.newlySettled[n-1].Last+1 == first {
		in.newlySettled[n-1].Last = last
		return
	}
	in.newlySettled = append(in.newlySettled, Range{First: first, Last: last})
}

// Reject marks a message as one that will not be handled. It returns the frame for the sender. The message counts as
// settled when the sender has confirmed it.
func (in *Inbound) Reject(seq uint64, err *PeerError) *wire.Reject {
	if in.rejected == nil {
		in.rejected = map[uint64]*PeerError{}
	}
	in.rejected[seq] = err
	return reject(in.handle, seq, err)
}

// End gives up what was received last and is neither settled nor rejected: the sender need not hear any more that it
// was received. The caller calls Ack until there is none, and Refuse.
func (in *Inbound) End() {
	told := max(in.ackedNext, in.settled.End())
	for seq := range in.rejected { // a sender that opens the stream again must have sent it
		told = max(told, seq+1)
	}
	in.next = min(in.next, told)
	in.grantPending = false
}

// Refuse returns the frame that refuses the whole stream for good.
func (in *Inbound) Refuse(err *PeerError) *wire.Reject { return reject(in.handle, 0, err) }

// RejectSeen settles a rejected message when the sender has confirmed the rejection.
func (in *Inbound) RejectSeen(seq uint64) {
	if _, ok := in.rejected[seq]; ok {
		delete(in.rejected, seq)
		in.settled.Add(seq, seq)
	}
}

// Outstanding is the credit that was granted and not used yet.
func (in *Inbound) Outstanding() Amount {
	messages, bytes := in.credit.available()
	return Amount{Messages: int(messages), Bytes: int(bytes)}
}

// Grant gives credit, which the next Ack carries.
func (in *Inbound) Grant(a Amount) {
	if a.Messages <= 0 {
		return
	}
	in.credit.messages += uint64(a.Messages)
	in.credit.bytes += uint64(a.Bytes)
	in.grantPending = true
}

// Return applies a Want's return of unused credit, and returns how much that was. seen is the Want's SeenMessages; ok
// is false if a grant crossed the Want on the wire.
func (in *Inbound) Return(seen uint64) (a Amount, ok bool) {
	if seen != in.credit.messages {
		return a, false
	}
	a = in.Outstanding()
	in.credit.dropUnused()
	return a, true
}

// Ack returns the Ack for what has changed since the last one; ok is false when nothing has. The caller must call it
// until then.
func (in *Inbound) Ack() (a AckFrame, ok bool) {
	if in.ackedNext == in.next && len(in.newlySettled) == 0 && !in.grantPending {
		return a, false
	}
	a.Handle = in.handle
	if in.ackedNext != in.next {
		a.Next, in.ackedNext = in.next, in.next
	}
	n := min(len(in.newlySettled), MaxRanges)
	for _, r := range in.newlySettled[:n] {
		a.Settled = append(a.Settled, r.First, r.Last)
	}
	in.newlySettled = in.newlySettled[:copy(in.newlySettled, in.newlySettled[n:])]
	if in.grantPending && len(in.newlySettled) == 0 { // what frees room goes before credit for the room
		a.Messages, a.Bytes, in.grantPending = in.credit.messages, in.credit.bytes, false
	}
	return a, true
}
