package demo

import (
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// outcome is what became of a message.
type outcome int

const (
	handled  outcome = iota + 1 // it parsed
	poisoned                    // it arrived through the poison queue
)

// entry is one message in the books: what the publisher says of it, and what was seen of it.
type entry struct {
	receipt  *receipt // nil: not confirmed to the publisher
	outcome  outcome  // of the first arrival
	sum      string   // of the first arrival
	arrivals int
}

// ledger holds both sides' books, by message id. It is safe for concurrent use.
type ledger struct {
	mu          sync.Mutex
	total       totals
	entries     map[string]*entry
	refused     int
	unreadable  int // of the refused
	interrupted bool
	deliveries  int   // times that a message came to the handler with its middlewares
	attempts    int   // times that the handler was called
	outcomes    int   // distinct messages that arrived
	published   int64 // bytes that were confirmed
	arrived     int64 // bytes of the outcomes
	awaited     int   // confirmed, not arrived
	last        time.Time
	changed     chan struct{}
}

func newLedger() *ledger {
	return &ledger{entries: map[string]*entry{}, changed: make(chan struct{}, 1)}
}

// entry returns the entry of an id. mu is held.
func (l *ledger) entry(id string) *entry {
	e := l.entries[id]
	if e == nil {
		e = &entry{}
		l.entries[id] = e
	}
	return e
}

func (l *ledger) found(t totals) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total = t
}

// confirm notes what was confirmed to the publisher. That can be later than its arrival.
func (l *ledger) confirm(receipts []receipt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range receipts {
		e := l.entry(r.ID)
		e.receipt = &r
		l.published += r.Size
		if e.arrivals == 0 {
			l.awaited++
		}
	}
}

// arrive notes that the way of a message of size bytes has come to an end.
func (l *ledger) arrive(id string, o outcome, sum string, size int) {
	l.mu.Lock()
	e := l.entry(id)
	if e.arrivals++; e.arrivals == 1 {
		e.outcome, e.sum = o, sum
		l.outcomes++
		l.arrived += int64(size)
		if e.receipt != nil {
			l.awaited--
		}
	}
	l.last = time.Now()
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *ledger) refuse(r refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
	if !r.TooLarge {
		l.unreadable++
	}
}

func (l *ledger) interrupt(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupted = yes
}

// countDelivery is a middleware outside of Retry, so that attempts beyond deliveries are retries.
func (l *ledger) countDelivery(h message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		l.mu.Lock()
		l.deliveries++
		l.mu.Unlock()
		return h(m)
	}
}

func (l *ledger) countAttempt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts++
}

// awaitOutcomes returns when all that was confirmed has arrived, or nothing has for so long.
func (l *ledger) awaitOutcomes(patience time.Duration) {
	for l.open() > 0 {
		timer := time.NewTimer(patience)
		select {
		case <-l.changed:
			timer.Stop()
		case <-timer.C:
			return
		}
	}
}

func (l *ledger) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.awaited
}

// lastOutcome is when the last message arrived; if none did, the given time.
func (l *ledger) lastOutcome(or time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.IsZero() {
		return or
	}
	return l.last
}

// progress is how far the run is.
func (l *ledger) progress() (outcomes int, total int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outcomes, l.total.Files - l.refused, l.arrived
}
