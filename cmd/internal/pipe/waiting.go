package pipe

import (
	"fmt"
	"strings"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// WaitingError says what an outbox still holds when a command ends. It is kept: a later command delivers it.
type WaitingError struct {
	Dir      string
	Messages uint64
	Where    []Waiting
	Err      error // why the command ended, such as ErrInterrupted
}

// Waiting is what one destination has not taken.
type Waiting struct {
	Destination string
	Messages    uint64
	Reason      string // may be empty
}

// namedDestinations is how many of them an error names.
const namedDestinations = 3

func (e *WaitingError) Error() string {
	var where strings.Builder
	separator := ": "
	for i, w := range e.Where {
		if i == namedDestinations {
			fmt.Fprintf(&where, ", and more for %d others", len(e.Where)-i)
			break
		}
		fmt.Fprintf(&where, "%s%d for %.200s", separator, w.Messages, Printable(w.Destination))
		separator = ", "
		if w.Reason != "" {
			fmt.Fprintf(&where, " (%s)", w.Reason)
		}
	}
	verb := "messages wait"
	if e.Messages == 1 {
		verb = "message waits"
	}
	return fmt.Sprintf("%v: %d %s in %s%s", e.Err, e.Messages, verb, e.Dir, where.String())
}

func (e *WaitingError) Unwrap() error { return e.Err }

// waiting counts what is left in an outbox.
func waiting(dir string, streams []store.Stream, why func(destination string) string) *WaitingError {
	e := &WaitingError{Dir: dir}
	at := map[string]int{}
	for _, s := range streams {
		if s.Pending == 0 {
			continue
		}
		i, known := at[s.Key.Destination]
		if !known {
			i = len(e.Where)
			at[s.Key.Destination] = i
			e.Where = append(e.Where, Waiting{Destination: s.Key.Destination, Reason: why(s.Key.Destination)})
		}
		e.Where[i].Messages += s.Pending
		e.Messages += s.Pending
	}
	return e
}
