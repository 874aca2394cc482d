package sender

import (
	"fmt"
	"slices"
	"strconv"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// take gives messages to members.
func (h *moveHost) take(n int) {
	if h.life == nil {
		return
	}
	for i, m := range h.life.members {
		for range n {
			d, _, ok := m.Take()
			if !ok {
				break
			}
			h.life.got(m, h.w.groups[i], d)
		}
	}
}

// got checks a delivery.
func (l *moveLife) got(m *dispatch.Member, group string, d dispatch.Delivery) {
	w := l.host.w
	id, err := strconv.Atoi(string(d.Message()))
	require.NoError(w.t, err)
	source, seq := d.Origin()
	tenure := source.(interface{ Tenure() uint64 }).Tenure()
	w.note("host %d group %s gets %d, tenure %d, sequence %d, again %v", l.host.n, group, id, tenure, seq, d.Elsewhere())
	w.mu.Lock()
	defer w.mu.Unlock()
	if before := w.given[group][id]; before != nil {
		here := before.life == l && before.tenure == tenure
		switch {
		case here && !d.Redelivered:
			w.fail("host %d group %s gets %d twice", l.host.n, group, id)
		case tenure < before.tenure && !before.again: // a receiver that has not heard yet that its tenure is void
			w.fail("host %d group %s had %d in tenure %d, and it was not marked", before.life.host.n, group, id, before.tenure)
		case !here && tenure >= before.tenure && !before.back && !d.Elsewhere():
			w.fail("host %d group %s gets %d, which host %d had in tenure %d, and it is not marked",
				l.host.n, group, id, before.life.host.n, before.tenure)
		}
		if !here && !before.back {
			w.count("duplicates", 1)
		}
		if tenure >= before.tenure {
			before.life, before.tenure, before.back, before.again = l, tenure, false, d.Elsewhere()
		}
	} else {
		w.given[group][id] = &given{life: l, tenure: tenure, again: d.Elsewhere()}
	}
	key := fmt.Sprintf("%s %d %p", group, tenure, source)
	if !d.Redelivered {
		call := w.callOf[id]
		if id <= l.behind[key] || id <= l.lastID[key][call.first] {
			w.fail("host %d group %s gets %d too late in tenure %d", l.host.n, group, id, tenure)
		}
		l.behind[key] = max(l.behind[key], call.behind)
		if l.lastID[key] == nil {
			l.lastID[key] = map[int]int{}
		}
		l.lastID[key][call.first] = id
	}
	l.hand = append(l.hand, handed{group, id, d, m})
}

// settle handles some of what is in hand, in any order.
func (h *moveHost) settle(n int) {
	for ; h.life != nil && n > 0 && len(h.life.hand) > 0; n-- {
		d := h.pick()
		h.w.note("host %d group %s handles %d", h.n, d.group, d.id)
		h.w.mu.Lock()
		h.w.given[d.group][d.id].handled = true
		h.w.mu.Unlock()
		d.member.Settle(d.Delivery)
	}
}

func (h *moveHost) pick() handed {
	i := h.w.rng.IntN(len(h.life.hand))
	d := h.life.hand[i]
	h.life.hand = slices.Delete(h.life.hand, i, i+1)
	return d
}

// giveBack is what a subscription does that ends.
func (h *moveHost) giveBack() {
	if h.life == nil || len(h.life.hand) == 0 {
		return
	}
	d := h.pick()
	h.w.note("host %d group %s gives %d back", h.n, d.group, d.id)
	h.w.mu.Lock()
	g := h.w.given[d.group][d.id]
	source, _ := d.Origin()
	if g.life == h.life && g.tenure == source.(interface{ Tenure() uint64 }).Tenure() && !g.handled {
		g.back = true
	}
	h.w.mu.Unlock()
	d.member.Return(d.Delivery)
}

// heal ends all faults, and waits until everything is handled. In half of the runs one host alone comes back: others are
// gone or silent for ever.
func (w *moveWorld) heal() {
	w.note("heal")
	survivor, some := w.rng.IntN(len(w.hosts)), w.rng.IntN(2) == 0
	for i, h := range w.hosts {
		silent := w.rng.IntN(2) == 0 && h.life != nil
		if some && i != survivor {
			if silent {
				w.note("host %d stays silent", i)
				w.count("silent for ever", 1)
				h.net.pause(true)
				continue
			}
			w.note("host %d stays away", i)
			w.count("gone for ever", 1)
			if h.life != nil {
				h.end(true)
			}
			continue
		}
		h.net.pause(false)
		if h.life != nil {
			h.end(false)
		}
		h.start()
	}
	for range 3000 {
		done := true
		for _, h := range w.hosts {
			if h.net.isPaused() { // its consumers do not run either
				continue
			}
			h.take(100)
			h.settle(100)
		}
		w.sleep(50 * time.Millisecond)
		synctest.Wait()
		for _, st := range w.streams {
			done = done && st.Unsettled() == 0
		}
		if done || w.t.Failed() {
			break
		}
	}
	synctest.Wait()
	if !w.t.Failed() {
		w.account()
	}
}

func (w *moveWorld) account() {
	for i, st := range w.streams {
		if n := st.Unsettled(); n > 0 {
			w.fail("stream %d at %v, moving %v, %v, has %d messages left", i, slices.Index(w.senders, st.Sender()), st.moving(), st.Sender().State(), n)
			return
		}
	}
	w.calls.Wait()
	for _, id := range w.published {
		for g, all := range w.given {
			if x := all[id]; x == nil || !x.handled {
				w.fail("message %d was never handled by group %s", id, g)
				return
			}
		}
	}
	w.count("messages", len(w.published))
	for _, h := range w.hosts {
		h.net.pause(false)
	}
	w.sleep(2 * time.Second)
	synctest.Wait()
	for _, h := range w.hosts {
		for range 20 {
			h.take(100)
			h.settle(1000)
		}
	}
	w.sleep(2 * time.Second) // idle streams give their credit back
	synctest.Wait()
	for _, h := range w.hosts {
		if h.life == nil {
			continue
		}
		if held := h.life.receiver.Topic("t").Window().Held(); held != (flow.Amount{}) {
			w.fail("host %d holds %+v when all is over", h.n, held)
		}
	}
}
