package policy

import "time"

// State is how far an address is.
type State int

// The states of an address.
const (
	Idle       State = iota // nothing has asked for a connection yet
	Connecting              // an attempt is under way
	Ready                   // the peer has welcomed the connection, and takes messages
	Draining                // the peer has said that it goes away
	Failed                  // the last attempt, or the connection, has failed; there will be another attempt
	Gone                    // it left every route and holds nothing
)

var stateNames = [...]string{"idle", "connecting", "ready", "draining", "failed", "gone"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return "unknown"
	}
	return stateNames[s]
}

// Ages finds the age of the oldest unsettled message of a stream from its position at several moments. The zero value
// has seen none. It is not safe for concurrent use.
type Ages struct {
	samples []sample      // with growing tails
	apart   time.Duration // the least time between two of them
}

// sample says that messages below tail were there at a moment.
type sample struct {
	tail uint64
	at   time.Time
}

// maxSamples bounds what Ages keeps: when it is full, every second sample goes, and the next ones are as far apart.
const maxSamples = 64

// Note takes the lowest unsettled sequence and the one after the last, and returns how long the former has been there:
// about, and never more than it was.
func (a *Ages) Note(head, tail uint64, now time.Time) time.Duration {
	n := 0
	for n < len(a.samples) && a.samples[n].tail <= head {
		n++
	}
	a.samples = append(a.samples[:0], a.samples[n:]...)
	if len(a.samples) == 0 {
		a.apart = 0
	}
	if head < tail {
		a.add(sample{tail, now})
	}
	if len(a.samples) == 0 {
		return 0
	}
	return now.Sub(a.samples[0].at)
}

func (a *Ages) add(s sample) {
	if n := len(a.samples); n > 0 {
		last := a.samples[n-1]
		if s.tail <= last.tail || s.at.Sub(last.at) < a.apart {
			return
		}
		if n == maxSamples {
			a.apart = 2 * (last.at.Sub(a.samples[0].at) / (maxSamples - 1))
			for i := range n / 2 {
				a.samples[i] = a.samples[2*i+1]
			}
			a.samples = a.samples[:n/2]
		}
	}
	a.samples = append(a.samples, s)
}

const (
	// SlowAfter is the age of an ack below which no address counts as slow.
	SlowAfter = 250 * time.Millisecond
	// slowFactor is how many times the age of its siblings makes an address slow.
	slowFactor = 4
)

// Slow tells which addresses to set aside, as their ages are far beyond their siblings': at most half of them, the
// slowest first.
func Slow(ages []time.Duration) []bool {
	slow := make([]bool, len(ages))
	for range len(ages) / 2 {
		slowest := -1
		for i, age := range ages {
			if !slow[i] && (slowest < 0 || age > ages[slowest]) {
				slowest = i
			}
		}
		var rest time.Duration // the greatest age of the others that are not slow
		for i, age := range ages {
			if !slow[i] && i != slowest {
				rest = max(rest, age)
			}
		}
		if ages[slowest] < SlowAfter || ages[slowest] < slowFactor*rest {
			break
		}
		slow[slowest] = true
	}
	return slow
}
