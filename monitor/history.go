package monitor

import (
	"sync"
	"time"
)

const (
	// sampleEvery is the distance of two points of a line, and samples their number: ten minutes.
	sampleEvery = 2 * time.Second
	samples     = 300
)

// Rates are messages per second over the last ten minutes, the newest last. Lines are shorter while there was less
// time.
type Rates struct {
	IntervalSeconds float64 `json:"interval_seconds"`
	// Sent are messages that went to peers, those that were sent again included; Settled those that came to their end
	// there; Received those that came from peers; Handled is what groups have settled.
	Sent     []float64 `json:"sent"`
	Settled  []float64 `json:"settled"`
	Received []float64 `json:"received"`
	Handled  []float64 `json:"handled"`
}

// counters are what rates are made of, by what has them: an address's counters begin anew when it is forgotten and
// comes back.
type counters struct{ sent, settled, received, handled uint64 }

// history is the rates of the last ten minutes.
type history struct {
	mu     sync.Mutex
	points []point // the oldest first
	before map[string]counters
	at     time.Time // of before; zero: there is none
}

type point struct{ sent, settled, received, handled float64 }

// add takes the counters of now. What was not there before counts from 0, unless there was nothing at all.
func (h *history) add(now time.Time, current map[string]counters) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, seconds := h.before, now.Sub(h.at).Seconds()
	first := h.at.IsZero()
	h.before, h.at = current, now
	if first || seconds <= 0 {
		return
	}
	var p point
	for key, c := range current {
		b := before[key]
		p.sent += grown(b.sent, c.sent) / seconds
		p.settled += grown(b.settled, c.settled) / seconds
		p.received += grown(b.received, c.received) / seconds
		p.handled += grown(b.handled, c.handled) / seconds
	}
	if len(h.points) == samples {
		h.points = append(h.points[:0], h.points[1:]...)
	}
	h.points = append(h.points, p)
}

// grown is the growth of a counter, which can have begun anew.
func grown(before, now uint64) float64 {
	if now < before {
		return float64(now)
	}
	return float64(now - before)
}

func (h *history) rates() Rates {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := Rates{IntervalSeconds: sampleEvery.Seconds(), Sent: []float64{}, Settled: []float64{}, Received: []float64{}, Handled: []float64{}}
	for _, p := range h.points {
		r.Sent = append(r.Sent, p.sent)
		r.Settled = append(r.Settled, p.settled)
		r.Received = append(r.Received, p.received)
		r.Handled = append(r.Handled, p.handled)
	}
	return r
}

// sample runs until Close.
func (m *Monitor) sample() {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		all := m.gather()
		m.history.add(all.at, all.counters())
		select {
		case <-tick.C:
		case <-m.quit:
			return
		}
	}
}
