package buffstreams

import (
	"slices"
	"sync"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// outboxUsers are the publishers of this process on one outbox. One of them delivers for all, so it has to know whom to
// tell of what is refused. The outbox keeps them, if it is a store.Sharer.
type outboxUsers struct {
	mu         sync.Mutex // guards the fields below
	publishers []*Publisher
	last       map[store.Key]*Publisher // that published last, of those with an OnFailure
}

// joinOutboxUsers adds a publisher to the users of an outbox. The caller must call leave.
func joinOutboxUsers(p *Publisher, outbox store.Outbox) *outboxUsers {
	u := usersOf(outbox)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.publishers = append(u.publishers, p)
	return u
}

// usersOf returns what an outbox keeps, or new users for one that keeps none: a publisher on that knows of no other.
func usersOf(outbox store.Outbox) *outboxUsers {
	fresh := &outboxUsers{last: map[store.Key]*Publisher{}}
	shared := fresh
	if sharer, ok := outbox.(store.Sharer); ok {
		_ = hook.Call(nameOutbox, func() error { // the code may be the user's; with an error there are no others
			if kept, ok := sharer.Shared(func() any { return fresh }).(*outboxUsers); ok {
				shared = kept
			}
			return nil
		})
	}
	return shared
}

// leave removes a publisher, which is told of nothing more.
func (u *outboxUsers) leave(p *Publisher) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.publishers = slices.DeleteFunc(u.publishers, func(other *Publisher) bool { return other == p })
	for key, last := range u.last {
		if last == p {
			delete(u.last, key)
		}
	}
}

// others returns the publishers but one.
func (u *outboxUsers) others(but *Publisher) []*Publisher {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(u.publishers), func(p *Publisher) bool { return p == but })
}

// published notes that a publisher appends to a stream.
func (u *outboxUsers) published(p *Publisher, key store.Key) {
	if p.cfg.OnFailure == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last[key] = p
}

// forget forgets who published to a stream that has ended.
func (u *outboxUsers) forget(key store.Key) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.last, key)
}

// failuresOf returns where refused messages of a stream go to: the publisher that published to it last, or any that has
// an OnFailure. It returns nil if none has one.
func (u *outboxUsers) failuresOf(key store.Key) *failureQueue {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.last[key]; p != nil {
		return &p.failures
	}
	for _, p := range u.publishers {
		if p.cfg.OnFailure != nil {
			return &p.failures
		}
	}
	return nil
}
