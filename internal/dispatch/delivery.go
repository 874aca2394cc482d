package dispatch

import (
	"bytes"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Delivery is one message given to a member, which has to Settle, Refuse, Return or Yield it. Until then the message is
// there as it arrived, whatever a handler does with the bytes that Message gave it.
type Delivery struct {
	run   *run
	index int32
	// Redelivered tells that the message was given to a member before: to one that gave it back, or to a group that
	// ended.
	Redelivered bool      // stands here as there is room, as does keyless
	keyless     bool      // no key can be found: see Forgo
	data        []byte    // the message, if it was detached from the run
	key         *keyQueue // of the key that the delivery holds, or nil
	Attempt     int       // earlier deliveries of the message that ended without an ack
}

// Message returns the message in memory that is the caller's: a handler may write to it.
func (d *Delivery) Message() []byte {
	return bytes.Clone(d.arrived()) // unlike with make, no memory is cleared first
}

// arrived is the message as it arrived.
func (d *Delivery) arrived() []byte {
	if d.data != nil {
		return d.data
	}
	return d.run.message(int(d.index))
}

// length is that of the message in bytes.
func (d *Delivery) length() int {
	if d.data != nil {
		return len(d.data)
	}
	return d.run.length(int(d.index))
}

// Size is the length of the message in bytes.
func (d *Delivery) Size() int { return d.length() }

// Detach moves the message out of memory that it shares with others. It is for a delivery that may take long: one that
// is stuck must not keep its whole run. It needs no lock.
func (d *Delivery) Detach() {
	if d.data == nil && d.run.count() > 1 {
		d.data = bytes.Clone(d.arrived())
		d.run.release()
	}
}

// Origin is where the message came from, and its sequence there. It may be called while the delivery is detached.
func (d *Delivery) Origin() (Source, uint64) { return d.run.source, d.run.first + uint64(d.index) }

// Received is when the message arrived.
func (d *Delivery) Received() time.Time { return d.run.at }

// Again reports whether the message is given out once more, as another subscription without a group had not settled it:
// see Topic. It may have been settled.
func (d Delivery) Again() bool { return d.run.repeats() }

// pos is the message's position in the log.
func (d *Delivery) pos() uint64 { return d.run.pos + uint64(d.index) }

// Settle ends a delivery: the message was handled.
func (m *Member) Settle(d Delivery) { m.settle([]Delivery{d}, nil) }

// SettleAll ends deliveries whose messages were handled.
func (m *Member) SettleAll(ds []Delivery) { m.settle(ds, nil) }

// Refuse ends a delivery: the message will not be handled.
func (m *Member) Refuse(d Delivery, refusal Refusal) { m.settle([]Delivery{d}, &refusal) }

// settle ends deliveries, and lets the keys that they hold go on. That comes after the report: what the report makes
// durable cannot come again beside the key's next message.
func (m *Member) settle(ds []Delivery, refusal *Refusal) {
	t := m.group.topic
	m.group.unsettled.Add(int64(-len(ds)))
	var few [4]settledRange
	done, keyed := few[:0], false
	var part []settledRange
	for i := range ds {
		d := &ds[i]
		keyed = keyed || d.key != nil
		s, last := t.settle(d, refusal)
		switch {
		case last:
			done = appendSettled(done, s)
		case t.ackImmediately && m.group.name != "" && refusal == nil && !d.run.repeats():
			part = appendSettled(part, s)
		}
	}
	t.report(done)
	m.group.reportPart(part)
	if keyed {
		m.releaseKeys(ds)
	}
}

// settle ends a delivery for its group, under the lock if other groups have to settle the message too.
func (t *Topic) settle(d *Delivery, refusal *Refusal) (s settledRange, last bool) {
	if d.run.shared() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if refusal == nil {
			d.run.left[d.index] |= handled
		}
	}
	return d.settle(refusal, t.size)
}

// settle ends the delivery for its group. last reports whether every group has settled the message now. The caller must
// hold Topic.mu if the run is shared.
func (d *Delivery) settle(refusal *Refusal, size func(n int) int) (s settledRange, last bool) {
	n := size(d.length())
	refusal, last = d.run.settle(int(d.index), refusal)
	s = settledRange{run: d.run, index: int(d.index), count: 1, bytes: n, refusal: refusal}
	if last && d.run.isReturned(int(d.index)) {
		s.returned, s.handled, s.refusal = true, d.run.isHandled(int(d.index)), nil
	}
	if d.data == nil {
		d.run.release()
	}
	return s, last
}

// settledRange is consecutive messages of a run that every group has settled; a refused message is a range of its own.
type settledRange struct {
	run          *run
	index, count int
	bytes        int // as the window counts them
	refusal      *Refusal
	returned     bool // some group had not settled them, but given them up
	handled      bool // and the handler of another had handled them
}

// appendSettled appends a range, or lengthens the last one by it.
func appendSettled(done []settledRange, s settledRange) []settledRange {
	if n := len(done); n > 0 {
		last := &done[n-1]
		if last.run == s.run && last.index+last.count == s.index && last.refusal == nil && s.refusal == nil && last.returned == s.returned && last.handled == s.handled {
			last.count += s.count
			last.bytes += s.bytes
			return done
		}
	}
	return append(done, s)
}

// report passes settled messages to their sources, and gives the window their room back. The caller must not hold t.mu.
func (t *Topic) report(done []settledRange) {
	for _, s := range done {
		first := s.run.first + uint64(s.index)
		if r, ok := s.run.source.(RevocableSource); s.returned && ok {
			r.Returned(first, first+uint64(s.count)-1, s.handled)
		} else if s.refusal != nil {
			s.run.source.Refused(first, *s.refusal)
		} else {
			s.run.source.Settled(first, first+uint64(s.count)-1)
		}
		t.window.Release(flow.Amount{Messages: s.count, Bytes: s.bytes})
	}
}
