package flow

import "container/heap"

// queue is the accounts that wait for a Budget, in order of asking. With ten thousand of them, each call has a few
// steps to do.
type queue struct {
	all   []*Account // nil: one has left
	first uint64     // ticket of all[0]
	n     int        // that are not nil
	empty emptyHanded
}

// join puts an account at the end.
func (q *queue) join(a *Account) {
	if q.n == 0 {
		q.all, q.first = q.all[:0], 1
	}
	a.ticket = q.first + uint64(len(q.all))
	a.waits = true
	q.all = append(q.all, a)
	q.n++
}

// leave takes an account out.
func (q *queue) leave(a *Account) {
	q.setEmpty(a, false)
	q.all[a.ticket-q.first] = nil
	a.ticket, a.waits = 0, false
	q.n--
	for len(q.all) > 0 && q.all[0] == nil {
		q.all, q.first = q.all[1:], q.first+1
	}
	if len(q.all) < 2*q.n+64 {
		return
	}
	kept := q.all[:0]
	for _, other := range q.all { // their order stays, so that empty is still one
		if other != nil {
			other.ticket = q.first + uint64(len(kept))
			kept = append(kept, other)
		}
	}
	clear(q.all[len(kept):])
	q.all = kept
}

// isBefore tells whether an account that waits has asked before another, which need not wait yet.
func (a *Account) isBefore(other *Account) bool { return other.ticket == 0 || a.ticket < other.ticket }

// setEmpty puts an account into empty, or takes it out.
func (q *queue) setEmpty(a *Account, empty bool) {
	switch {
	case empty && a.spot == 0:
		heap.Push(&q.empty, a)
	case !empty && a.spot > 0:
		heap.Remove(&q.empty, a.spot-1)
	}
}

// emptyHanded is a heap by ticket of those that hold nothing, and for which what is free is set aside.
type emptyHanded []*Account

func (e emptyHanded) Len() int           { return len(e) }
func (e emptyHanded) Less(i, k int) bool { return e[i].ticket < e[k].ticket }

func (e emptyHanded) Swap(i, k int) {
	e[i], e[k] = e[k], e[i]
	e[i].spot, e[k].spot = i+1, k+1
}

func (e *emptyHanded) Push(a any) {
	*e = append(*e, a.(*Account)) //nolint:forcetypeassert // heap passes what Push was called with
	(*e)[len(*e)-1].spot = len(*e)
}

func (e *emptyHanded) Pop() any {
	last := len(*e) - 1
	a := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	a.spot = 0
	return a
}
