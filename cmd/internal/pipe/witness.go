package pipe

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// witness is a logger that knows, for a caller that waits, what keeps messages from being delivered: it remembers the
// last error of each address, and tells at once, but only once, what waiting is unlikely to mend.
type witness struct {
	watermill.LoggerAdapter
	*testimony
}

// testimony is what all copies of a witness share.
type testimony struct {
	warn     io.Writer
	onDamage func(*store.CorruptError)

	mu   sync.Mutex
	last map[string]error // by address
	told map[string]bool
}

func newWitness(logger watermill.LoggerAdapter, warn io.Writer, onDamage func(*store.CorruptError)) witness {
	return witness{logger, &testimony{warn: warn, onDamage: onDamage, last: map[string]error{}, told: map[string]bool{}}}
}

func (w witness) Error(msg string, err error, fields watermill.LogFields) {
	w.LoggerAdapter.Error(msg, err, fields)
	var damage *store.CorruptError
	switch _, single := fields["sequence"]; {
	case errors.As(err, &damage):
		w.tell(err, "a part of the outbox is lost, and what follows it is kept")
		w.onDamage(damage)
	case single: // OnFailure has it
	case err != nil:
		w.note(fields, err)
		w.tell(fmt.Errorf("%v: %w", fields["address"], Explain(err)), "its messages are kept and tried again")
	}
}

func (w witness) Info(msg string, fields watermill.LogFields) {
	w.LoggerAdapter.Info(msg, fields)
	if err, ok := fields["err"].(error); ok {
		w.note(fields, err)
	}
}

func (w witness) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return witness{w.LoggerAdapter.With(fields), w.testimony}
}

func (t *testimony) note(fields watermill.LogFields, err error) {
	address, ok := fields["address"].(string)
	if !ok {
		return
	}
	if parsed, err := ParseTopic(address); err == nil {
		address = parsed.Target.Address
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[address] = err
}

func (t *testimony) tell(err error, consequence string) {
	text := err.Error() // the peer's words in it are quoted
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told[text] {
		return
	}
	t.told[text] = true
	_, _ = fmt.Fprintf(t.warn, "buffstreams: %s; %s\n", text, consequence)
}

// lastError is what ended the last connection to an address, or the last attempt to get one; it may be nil.
func (t *testimony) lastError(address string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[address]
}
