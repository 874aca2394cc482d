package hosts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// ledger is what Publish said of each message, and each delivery of it.
type ledger struct {
	mu         sync.Mutex // guards the fields below
	said       map[int]saying
	deliveries map[int][]delivery
	last       map[stay]int // the number that was delivered last
	inversions []string     // within a stay
	longest    time.Duration
	stuck      int // calls that took longer than three seconds
	firstErr   error
}

// saying is what Publish said of a message.
type saying int

const (
	underWay saying = iota
	confirmed
	notSent
	unknown
)

// delivery is one of a message.
type delivery struct {
	host   int
	marked bool // as one that can be another's duplicate
	tenure string
}

// stay is the messages of a key while their stream is at a host.
type stay struct {
	host        int
	key, tenure string
}

func newLedger() *ledger {
	return &ledger{said: map[int]saying{}, deliveries: map[int][]delivery{}, last: map[stay]int{}}
}

// delivered takes a line of a replica, "number key marked tenure": what was handled, or, behind a plus, what a handler begins
// with.
func (l *ledger) delivered(host int, line string) {
	line, begins := strings.CutPrefix(line, "+")
	fields := strings.Fields(line)
	if len(fields) != 4 { // the last one of a process that was killed
		return
	}
	number, err := strconv.Atoi(fields[0])
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d := delivery{host, fields[2] == "true", fields[3]}
	if !begins {
		l.deliveries[number] = append(l.deliveries[number], d)
		return
	}
	at := stay{host, fields[1], d.tenure}
	if last := l.last[at]; number <= last && !d.marked {
		l.inversions = append(l.inversions, fmt.Sprintf("%d behind %d, key %s of host %d in tenure %s", number, last, at.key, host, at.tenure))
	}
	l.last[at] = max(l.last[at], number)
}

// published notes what Publish said of messages first to first+n-1.
func (l *ledger) published(first int, messages []*message.Message, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.longest = max(l.longest, took); took > 3*time.Second {
		l.stuck++
	}
	at := map[*message.Message]saying{}
	if failed := (*buffstreams.PublishError)(nil); errors.As(err, &failed) {
		for _, m := range failed.NotSent {
			at[m] = notSent
		}
		for _, m := range failed.Unknown {
			at[m] = unknown
		}
	}
	if err != nil && l.firstErr == nil {
		l.firstErr = err
	}
	for i, m := range messages {
		s := at[m]
		if s == underWay {
			s = confirmed
		}
		l.said[first+i] = s
	}
}

// offer publishes at a rate, in calls of batch messages, until stop is closed. Each caller has keys of its own.
func (l *ledger) offer(pub *buffstreams.Publisher, rate, batch int, stop <-chan struct{}) (wait func()) {
	var wg sync.WaitGroup
	var next sync.Mutex // guards number
	number := 1
	for c := range callers {
		wg.Go(func() { // ends with stop
			each := time.NewTicker(time.Second * time.Duration(callers*batch) / time.Duration(rate))
			defer each.Stop()
			for {
				select {
				case <-stop:
					return
				case <-each.C:
				}
				next.Lock()
				first := number
				number += batch
				next.Unlock()
				messages := make([]*message.Message, batch)
				for i := range messages {
					key := fmt.Sprintf("%d-%d", c, i%8)
					messages[i] = message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, "%d %s", first+i, key))
					messages[i].Metadata.Set("key", key)
				}
				began := time.Now()
				err := pub.Publish("orders", messages...)
				l.published(first, messages, time.Since(began), err)
			}
		})
	}
	return wg.Wait
}

// count is how many messages Publish said something of.
func (l *ledger) count(of saying) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.said {
		if s == of {
			n++
		}
	}
	return n
}

// lacking are the confirmed messages that no host has had, or each of some hosts where these are named.
func (l *ledger) lacking(hosts ...int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for number, s := range l.said {
		if s != confirmed {
			continue
		}
		if len(hosts) == 0 && len(l.deliveries[number]) == 0 {
			n++
		}
		for _, host := range hosts {
			if !l.at(number, host) {
				n++
			}
		}
	}
	return n
}

// missing counts what hosts have not handled of the messages that were on their way to each of them.
func (l *ledger) missing(hosts []int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for number, s := range l.said {
		for _, host := range hosts {
			if s != notSent && !l.at(number, host) {
				n++
			}
		}
	}
	return n
}

// at tells whether a host has had a message. mu must be held.
func (l *ledger) at(number, host int) bool {
	for _, d := range l.deliveries[number] {
		if d.host == host {
			return true
		}
	}
	return false
}

// duplicates counts deliveries of messages that a host had before, and those of them that were not marked, nor the other one.
func (l *ledger) duplicates(all bool) (n, unmarked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ds := range l.deliveries {
		groups := map[int][]delivery{}
		for _, d := range ds {
			host := 0
			if all { // each host has its own
				host = d.host
			}
			groups[host] = append(groups[host], d)
		}
		for _, g := range groups {
			plain := 0
			for _, d := range g {
				if !d.marked {
					plain++
				}
			}
			n += len(g) - 1
			unmarked += max(0, plain-1)
		}
	}
	return n, unmarked
}

// check says what became of all, and requires what holds whatever happened.
func (l *ledger) check(t testing.TB, policy string) {
	duplicates, unmarked := l.duplicates(policy == "All")
	l.mu.Lock()
	defer l.mu.Unlock()
	var invented, sentAll int
	for number, s := range l.said {
		if s == notSent && len(l.deliveries[number]) > 0 {
			sentAll++
		}
	}
	for number := range l.deliveries {
		if _, ok := l.said[number]; !ok {
			invented++
		}
	}
	t.Logf("%d published, %d duplicates, longest Publish %v, %d calls took more than 3 s, first error %v", len(l.said), duplicates,
		l.longest.Round(time.Millisecond), l.stuck, l.firstErr)
	require.Zero(t, invented, "messages that no call published")
	require.Zero(t, sentAll, "messages that were not sent, as Publish said, were delivered")
	require.Zero(t, unmarked, "deliveries that came twice and were not marked")
	if policy == "Hash" {
		require.Empty(t, l.inversions[:min(5, len(l.inversions))])
	}
}
