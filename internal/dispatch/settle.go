package dispatch

import "github.com/buffstreams/watermill-buffstreams/internal/flow"

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
	for _, d := range ds {
		keyed = keyed || d.key != nil
		if s, last := t.settle(d, refusal); last {
			done = appendSettled(done, s)
		}
	}
	t.report(done)
	if keyed {
		m.releaseKeys(ds)
	}
}

// settle ends a delivery for its group, under the lock if other groups have to settle the message too.
func (t *Topic) settle(d Delivery, refusal *Refusal) (s settledRange, last bool) {
	if d.run.shared() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if refusal == nil {
			d.run.left[d.index] |= handled
		}
	}
	return d.settle(refusal, t.size)
}

// settledRange is consecutive messages of a run that every group has settled; a refused message is a range of its own.
type settledRange struct {
	run          *run
	index, count int
	bytes        int // as the window counts them
	refusal      *Refusal
}

// appendSettled appends a range, or lengthens the last one by it.
func appendSettled(done []settledRange, s settledRange) []settledRange {
	if n := len(done); n > 0 {
		last := &done[n-1]
		if last.run == s.run && last.index+last.count == s.index && last.refusal == nil && s.refusal == nil {
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
		if s.refusal != nil {
			s.run.source.Refused(first, *s.refusal)
		} else {
			s.run.source.Settled(first, first+uint64(s.count)-1)
		}
		t.window.Release(flow.Amount{Messages: s.count, Bytes: s.bytes})
	}
}
