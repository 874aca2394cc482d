package dispatch

import (
	"bytes"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// remainderFor is how long a message stays in a remainder.
const remainderFor = time.Minute

// remainder is what single subscriptions that ended had not settled, in the order of the log. Its deliveries are
// copies, of messages that may have been settled: they are given out once more, and settling them has no effect. It is
// guarded by Topic.mu.
type remainder struct {
	deliveries []Delivery
	timer      *time.Timer // empties the remainder; nil if it is empty
}

// add adds copies of deliveries. One that is there already stays for remainderFor from now on.
func (r *remainder) add(t *Topic, ds []Delivery) {
	ds = t.newest(mergeOrdered(ds, r.live()))
	r.clear()
	if len(ds) == 0 {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(remainderFor, func() { // Stopped by clear.
		t.mu.Lock()
		if r.timer == timer {
			r.clear()
		}
		t.mu.Unlock()
		t.mayBeUnused()
	})
	r.deliveries, r.timer = ds, timer
}

func (r *remainder) clear() {
	if r.timer != nil {
		r.timer.Stop()
	}
	r.deliveries, r.timer = nil, nil
}

// live returns the deliveries whose time has not passed.
func (r *remainder) live() (ds []Delivery) {
	now := time.Now()
	for _, d := range r.deliveries {
		if now.Before(d.run.until) {
			ds = append(ds, d)
		}
	}
	return ds
}

// again returns a delivery that gives a message out once more.
func (d *Delivery) again(until time.Time) Delivery {
	source, seq := d.Origin()
	return Delivery{
		run:  &run{source: source, first: seq, pos: d.pos(), at: d.run.at, until: until, elsewhere: d.run.elsewhere},
		data: bytes.Clone(d.arrived()), Attempt: d.Attempt, Redelivered: true,
	}
}

// copies returns copies of the messages that the group has not settled and no member has, in no order.
func (g *group) copies() (ds []Delivery) {
	until := time.Now().Add(remainderFor)
	g.eachUntaken(func(d Delivery) { ds = append(ds, d.again(until)) })
	return ds
}

// giveAgain gives messages out once more, except those that the group is still to give out anyway. The group has no
// members.
func (g *group) giveAgain(ds []Delivery) {
	g.forgetKeys() // one that is given out once more may come before what holds its key
	var more []Delivery
	for _, d := range ds {
		if d.pos() < g.position() {
			more = append(more, d)
		}
	}
	before := len(g.returned)
	g.returned = g.topic.newest(mergeOrdered(g.returned, more))
	g.unsettled.Add(int64(len(g.returned) - before))
}

// newest removes the oldest of the messages that are given out once more, where these are more than the window holds.
func (t *Topic) newest(ds []Delivery) []Delivery {
	var held flow.Amount
	size := t.window.Size()
	for i, d := range slices.Backward(ds) {
		if !d.run.repeats() {
			continue
		}
		held.Messages++
		held.Bytes += t.size(d.length())
		if held.Messages > size.Messages || held.Bytes > size.Bytes {
			first := slices.DeleteFunc(ds[:i+1:i+1], func(d Delivery) bool { return d.run.repeats() })
			return slices.Concat(first, ds[i+1:])
		}
	}
	return ds
}

// mergeOrdered merges two slices in the order of the log. Of a message that is in both, it takes the one in a.
func mergeOrdered(a, b []Delivery) []Delivery {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, comparePos)
	return slices.CompactFunc(all, func(x, y Delivery) bool { return x.pos() == y.pos() })
}

// stays reports whether a subscription's group has a member that goes on.
func (g *group) stays() bool {
	return slices.ContainsFunc(g.members, func(m *Member) bool {
		return !m.stopped && !m.draining && (m.ending == nil || !m.ending())
	})
}

// bequeath ends the group. What it has not settled is heir's, a group without members or keys: what both have, heir
// alone has to settle, unless it has a copy. The caller has to report what it returns.
func (g *group) bequeath(heir *group) (done []settledRange) {
	has := map[uint64]bool{}
	for _, d := range heir.returned {
		has[d.pos()] = has[d.pos()] || !d.run.repeats()
	}
	var left []Delivery
	done = g.dropEach(func(d Delivery) bool {
		if d.pos() >= heir.position() || has[d.pos()] {
			return false
		}
		d.key = nil // it was the ended group's
		left = append(left, d)
		return true
	})
	before := len(heir.returned)
	heir.returned = g.topic.newest(mergeOrdered(left, heir.returned))
	heir.unsettled.Add(int64(len(heir.returned) - before))
	return done
}
