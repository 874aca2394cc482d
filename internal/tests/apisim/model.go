package apisim

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// outcome is what Publish said of a message.
type outcome string

const (
	pending  outcome = "pending" // it has not returned
	okay     outcome = "nil"
	notSent  outcome = "not sent"
	unknown  outcome = "unknown"
	panicked outcome = "panicked"
)

// msg is a message and what became of it. The world's mu guards it.
type msg struct {
	id      int
	from    *publisher
	to      []int                // receivers that it can go to
	routed  bool                 // a route of several hosts chooses one of them, or takes all
	had     map[string][]*handed // by group; of routed ones
	topic   string
	seq     int // in its lane
	lane    string
	key     string
	payload string

	began, returned time.Time
	outcome         outcome

	acks     map[string]*ack // by group
	nacks    int
	served   bool            // its topic had a group when it was published
	first    map[string]bool // groups that it was delivered to
	failed   string          // it came to a failure hook or the dead letters, in words
	dropped  string          // why the contract lets it go unhandled
	reported time.Time       // when OnFailure of the publisher had it

	undelivered bool // a Close has given it to OnFailure
}

// ack is the first one of a group. It is void if the delivery was over.
type ack struct {
	void bool
	life *life
	by   *subscription
	at   time.Time
}

// settled reports whether some handler or failure hook has answered for the message.
func (m *msg) settled() bool { return len(m.acks) > 0 || m.failed != "" }

// heardLocked reports whether a receiver knows that a handler has acked the message: the ack was of a delivery that was
// not over, as by AckWaitTimeout, and in a process that has not been killed since, which forgets what not all groups
// had acked. Where the DedupeStore has not returned since, it is not known to be durable, and says nothing. The caller
// must hold mu.
func (w *world) heardLocked(m *msg) bool {
	for _, a := range m.acks {
		until, ever := w.gated["dedupe"]
		saved := a.life.store == nil || !ever || !until.IsZero() && until.Before(a.at)
		if saved && !a.void && a.life.how != "killed" {
			return true
		}
	}
	return false
}

func (m *msg) String() string { return fmt.Sprintf("m%d (%s to %s)", m.id, m.from.name(), m.topic) }

var idPattern = regexp.MustCompile(`m(\d+):`)

// find finds the message of encoded bytes.
func (w *world) find(data []byte) *msg {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.findLocked(data)
}

func (w *world) findLocked(data []byte) *msg {
	found := idPattern.FindSubmatch(data)
	if found == nil {
		return nil
	}
	id, _ := strconv.Atoi(string(found[1]))
	if id >= len(w.messages) {
		return nil
	}
	return w.messages[id]
}

// newMessage makes a message and its place in the account.
func (w *world) newMessage(from *publisher, d destination, lane string, size int) (*msg, *message.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &msg{
		id: len(w.messages), from: from, to: d.to, routed: d.routed, had: map[string][]*handed{}, topic: d.topic, lane: lane, outcome: pending,
		acks: map[string]*ack{}, first: map[string]bool{},
	}
	m.key = "k" + strconv.Itoa(m.id%3)
	m.payload = fmt.Sprintf("m%d:%s", m.id, filler[:size])
	w.messages = append(w.messages, m)
	out := message.NewMessage(fmt.Sprintf("m%d", m.id), []byte(m.payload))
	out.Metadata.Set("key", m.key)
	return m, out
}

var filler = func() string {
	b := make([]byte, 100<<10)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return string(b)
}()

// publishError is what the model needs of a *PublishError.
type publishError struct{ notSent, unknown []*message.Message }

// conclude notes what a Publish call came to.
func (w *world) conclude(ms []*msg, err error, split func(error) []publishError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	byID := map[string]*msg{}
	dead := len(ms) > 0 && ms[0].from.life.proc.dead.Load() // what the call returned is lost
	for _, m := range ms {
		m.returned = time.Now()
		byID[fmt.Sprintf("m%d", m.id)] = m
		switch {
		case dead:
			m.outcome = unknown
		case err == nil:
			m.outcome = okay
		default:
			m.outcome = unknown
		}
	}
	if errors.Is(err, errPanicked) && !dead {
		for _, m := range ms {
			m.outcome = panicked
		}
	}
	if err == nil || dead {
		return
	}
	parts := split(err)
	if len(parts) == 0 && errors.Is(err, errPublisherClosed) { // it was not even begun
		for _, m := range ms {
			m.outcome = notSent
		}
	}
	if len(parts) == 1 { // those in neither list have reached their level
		for _, m := range ms {
			m.outcome = okay
		}
	}
	for _, p := range parts {
		for _, x := range p.unknown {
			byID[x.UUID].outcome = unknown
		}
		for _, x := range p.notSent {
			byID[x.UUID].outcome = notSent
		}
	}
}

// joined walks the errors that an error is made of.
func joined(err error, f func(error)) {
	if err == nil {
		return
	}
	f(err)
	switch x := err.(type) { //nolint:errorlint // it is the walk itself
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			joined(e, f)
		}
	case interface{ Unwrap() error }:
		joined(x.Unwrap(), f)
	}
}

var errPanicked = errors.New("apisim: the call panicked")
