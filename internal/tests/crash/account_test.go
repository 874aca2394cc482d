//go:build linux

package crash

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// flow is what one publisher sends to one topic: messages with numbers from 1 on.
type flow struct{ publisher, topic string }

// run is a run of numbers, both ends included.
type run struct{ first, last uint64 }

// handling is one effect of a handler.
type handling struct {
	flow   flow
	number uint64
	life   int // of the subscriber: how often it was started before
}

// account is what the processes reported before they died.
type account struct {
	mu        sync.Mutex
	tried     map[flow]uint64 // the highest number that was handed to Publish
	confirmed map[flow][]run  // for which it returned nil
	handled   []handling      // in the order of the effects
}

func newAccount() *account {
	return &account{tried: map[flow]uint64{}, confirmed: map[flow][]run{}}
}

// try notes that numbers were handed to Publish: from here on each may arrive. None is ever used again.
func (a *account) try(f flow, r run) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.first != a.tried[f]+1 || r.last < r.first {
		return fmt.Errorf("crash: %v tries %v after %d", f, r, a.tried[f])
	}
	a.tried[f] = r.last
	return nil
}

func (a *account) confirm(f flow, r run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.confirmed[f] = append(a.confirmed[f], r)
}

func (a *account) handle(h handling) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handled = append(a.handled, h)
}

// next is the first number that no publisher has used.
func (a *account) next(f flow) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tried[f] + 1
}

// verdict is the account in figures.
type verdict struct{ confirmed, handled, unknown, duplicates, worst int }

// verdict compares what was confirmed with what was handled. Every process has ended.
func (a *account) verdict(t *testing.T, m mode) verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.repeats(t, m)
	seen := a.firsts(t, m)
	v.handled = len(seen)
	for f, runs := range a.confirmed {
		for _, r := range runs {
			for n := r.first; n <= r.last; n++ {
				require.True(t, seen[mark{f, n}], "number %d of %v was confirmed and is lost; %d were tried", n, f, a.tried[f])
				v.confirmed++
			}
		}
	}
	v.unknown = v.handled - v.confirmed
	return v
}

// mark names a message.
type mark struct {
	flow   flow
	number uint64
}

// lane is what order is kept in.
type lane struct {
	flow flow
	key  string
}

// firsts returns what was handled, and sees to it that first deliveries came in order and nothing was made up.
func (a *account) firsts(t *testing.T, m mode) map[mark]bool {
	seen := map[mark]bool{}
	highest := map[lane]uint64{}
	for _, h := range a.handled {
		require.True(t, h.number >= 1 && h.number <= a.tried[h.flow], "number %d of %v was never published", h.number, h.flow)
		at := mark{h.flow, h.number}
		if seen[at] {
			continue
		}
		seen[at] = true
		l := lane{flow: h.flow}
		if m.maxInFlight > 1 {
			l.key = key(h.number)
		}
		require.Greater(t, h.number, highest[l], "order of %v", l)
		highest[l] = h.number
	}
	return seen
}

// repeats counts second deliveries, each to the account of the life that handled the message before: it died with it in
// flight.
func (a *account) repeats(t *testing.T, m mode) (v verdict) {
	type death struct {
		life  int
		topic string
	}
	lives := map[mark]int{}
	deaths := map[death]int{}
	for _, h := range a.handled {
		at := mark{h.flow, h.number}
		if before, again := lives[at]; again {
			require.Less(t, before, h.life, "number %d of %v came twice to a process that lives", h.number, h.flow)
			d := death{before, h.flow.topic}
			deaths[d]++
			v.duplicates++
			v.worst = max(v.worst, deaths[d])
		}
		lives[at] = h.life
	}
	require.LessOrEqual(t, v.worst, m.duplicates(), "messages of a subscription that came again after one kill")
	return v
}
