package netio

import (
	"sync"
	"time"
)

// quietFor is the least time between two lines that say the same.
const quietFor = time.Minute

// Quiet lets the first of many events of one kind be logged, and then one a minute, with the number of those between.
// The zero value has seen none. It is safe for concurrent use.
type Quiet struct {
	mu    sync.Mutex // guards the fields below
	said  time.Time
	count int
}

// Say counts an event. ok tells that it is to be logged, for count events: those since the last one that was, with this
// one.
func (q *Quiet) Say() (count int, ok bool) { return q.say(time.Now()) }

func (q *Quiet) say(now time.Time) (count int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count++
	if !q.said.IsZero() && now.Sub(q.said) < quietFor {
		return 0, false
	}
	count, q.count, q.said = q.count, 0, now
	return count, true
}

// QuietBy is a Quiet for each of many names, such as peers. Names beyond maxQuiet share one.
type QuietBy struct {
	mu     sync.Mutex // guards the fields below
	by     map[string]*Quiet
	others Quiet
}

// maxQuiet is how many names have a Quiet of their own. Those that have said nothing for a while make room.
const maxQuiet = 1000

// Say is Quiet.Say for a name.
func (q *QuietBy) Say(name string) (count int, ok bool) {
	now := time.Now()
	return q.of(name, now).say(now)
}

func (q *QuietBy) of(name string, now time.Time) *Quiet {
	q.mu.Lock()
	defer q.mu.Unlock()
	if one := q.by[name]; one != nil {
		return one
	}
	if len(q.by) >= maxQuiet {
		for other, one := range q.by {
			if one.isOver(now) {
				delete(q.by, other)
			}
		}
	}
	if len(q.by) >= maxQuiet {
		return &q.others
	}
	if q.by == nil {
		q.by = map[string]*Quiet{}
	}
	one := &Quiet{}
	q.by[name] = one
	return one
}

// isOver reports whether nothing is lost with q: it would let the next event through, and has counted none.
func (q *Quiet) isOver(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count == 0 && now.Sub(q.said) >= quietFor
}
