package bridge

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// seen are the names of the messages that the destination got last: those that it had at the start, and what was
// forwarded since. A source that has lost an ack, or its connection, gives messages again that are among them. It is
// safe for concurrent use.
type seen struct {
	mu    sync.Mutex
	names map[string]struct{}
	ring  []string // in the order of their arrival, the oldest at next
	next  int
}

// newSeen returns a memory of so many names; it has none where that is not positive.
func newSeen(size int) *seen {
	return &seen{names: map[string]struct{}{}, ring: make([]string, max(size, 0))}
}

func (s *seen) add(messages []*held) {
	if len(s.ring) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range messages {
		if _, there := s.names[h.id]; there || h.id == "" {
			continue
		}
		delete(s.names, s.ring[s.next])
		s.names[h.id], s.ring[s.next] = struct{}{}, h.id
		s.next = (s.next + 1) % len(s.ring)
	}
}

func (s *seen) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.names[name]
	return there
}

// lookAgain asks the destination for its last messages until it answers: what was sent before it stood still can be
// stored when it goes on. known is false if it cannot be asked, or ctx is done.
func (l *lane) lookAgain(ctx context.Context) (ids []string, known bool) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		asking, cancel := context.WithTimeout(ctx, lookBackTimeout)
		ids, known, err := l.b.to.Recent(asking, l.topic.To, l.b.cfg.LookBack)
		cancel()
		if err == nil {
			return ids, known
		}
		l.trouble.Failed(err, watermill.LogFields{"topic": l.topic.To})
		l.b.note(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, false
		}
	}
}

// stallAfter is how long a batch may be on its way before that is trouble.
const stallAfter = 5 * time.Second

// errStalled means that a batch is on its way for long, and the destination's client has no error to show.
var errStalled = errors.New("bridge: the destination has not answered for 5 s: it is away, or has no room")

// watch notes that the destination does not answer, unless stop is called in time.
func (l *lane) watch() (stop func() bool) {
	return time.AfterFunc(stallAfter, func() {
		l.b.note(errStalled)
		l.trouble.Failed(errStalled, watermill.LogFields{"topic": l.topic.To})
	}).Stop
}

// newTrouble logs what keeps a lane from forwarding.
func (p *pipe) newTrouble() *driver.Trouble {
	return &driver.Trouble{
		Logger: p.b.cfg.Logger, What: "The destination has not confirmed messages; publishing them again", Over: "The destination confirms messages again",
	}
}
