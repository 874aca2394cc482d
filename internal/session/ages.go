package session

import (
	"slices"
	"sort"
	"time"
)

// maxMarks bounds the marks of one stream. When there are more, about every second one goes: ages are then known to
// about a hundredth of the time that the marks span.
const maxMarks = 256

// ages says when the messages of a stream were enqueued, by marks for some of them. It is only for those who watch:
// nothing that the protocol does depends on it.
type ages struct {
	marks   []mark
	spacing int64 // of the marks, at least, in ns
}

// mark says that the messages from seq on, up to the next mark, came at a time, in ns since 1970, or a little later.
type mark struct {
	seq uint64
	at  int64
}

// note says that message seq, the newest, comes at a time.
func (a *ages) note(seq uint64, at int64) {
	if n := len(a.marks); n > 0 && at-a.marks[n-1].at <= a.spacing {
		return
	}
	if a.marks = append(a.marks, mark{seq, at}); len(a.marks) < maxMarks {
		return
	}
	a.spacing = (at - a.marks[0].at) / (maxMarks / 2)
	kept := a.marks[:1]
	for _, m := range a.marks[1:] {
		if m.at-kept[len(kept)-1].at > a.spacing {
			kept = append(kept, m)
		}
	}
	a.marks = kept
}

// drop forgets the marks that are needed for no message from seq on.
func (a *ages) drop(seq uint64) {
	if i := a.find(seq); i > 0 {
		a.marks = slices.Delete(a.marks, 0, i)
	}
}

// clear forgets all marks, as nothing is left.
func (a *ages) clear() {
	a.spacing = 0
	if a.marks = a.marks[:0]; cap(a.marks) > 16 {
		a.marks = nil // an idle stream keeps no memory
	}
}

// of returns when message seq came; zero: it is not known.
func (a *ages) of(seq uint64) time.Time {
	if i := a.find(seq); i >= 0 && a.marks[i].at != 0 {
		return time.Unix(0, a.marks[i].at)
	}
	return time.Time{}
}

// find returns the index of the mark for message seq, or -1.
func (a *ages) find(seq uint64) int {
	return sort.Search(len(a.marks), func(i int) bool { return a.marks[i].seq > seq }) - 1
}
