package buffstreams

import (
	"reflect"
	"slices"
	"sync"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// outboxUsers are the publishers of this process on one outbox. One of them delivers for all, so it has to know whom to tell
// of what is refused.
type outboxUsers struct {
	outbox store.Outbox // nil: the outbox cannot be compared with others
	users  int          // guarded by allOutboxUsers.mu

	mu         sync.Mutex // guards the fields below
	publishers []*Publisher
	last       map[store.Key]*Publisher // that published last, of those with an OnFailure
}

// allOutboxUsers has the users of all outboxes.
var allOutboxUsers struct {
	mu  sync.Mutex // guards all
	all map[store.Outbox]*outboxUsers
}

// joinOutboxUsers adds a publisher to the users of an outbox. The caller must call leave.
func joinOutboxUsers(p *Publisher, outbox store.Outbox) *outboxUsers {
	u := usersOf(outbox)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.publishers = append(u.publishers, p)
	return u
}

func usersOf(outbox store.Outbox) *outboxUsers {
	if !reflect.ValueOf(outbox).Comparable() {
		return &outboxUsers{last: map[store.Key]*Publisher{}}
	}
	allOutboxUsers.mu.Lock()
	defer allOutboxUsers.mu.Unlock()
	u := allOutboxUsers.all[outbox]
	if u == nil {
		if allOutboxUsers.all == nil {
			allOutboxUsers.all = map[store.Outbox]*outboxUsers{}
		}
		u = &outboxUsers{outbox: outbox, last: map[store.Key]*Publisher{}}
		allOutboxUsers.all[outbox] = u
	}
	u.users++
	return u
}

// leave removes a publisher, which is told of nothing more.
func (u *outboxUsers) leave(p *Publisher) {
	u.mu.Lock()
	u.publishers = slices.DeleteFunc(u.publishers, func(other *Publisher) bool { return other == p })
	for key, last := range u.last {
		if last == p {
			delete(u.last, key)
		}
	}
	u.mu.Unlock()
	if u.outbox == nil {
		return
	}
	allOutboxUsers.mu.Lock()
	defer allOutboxUsers.mu.Unlock()
	if u.users--; u.users == 0 {
		delete(allOutboxUsers.all, u.outbox)
	}
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

// failuresOf returns where refused messages of a stream go to: the publisher that published to it last, or any that has an
// OnFailure. It returns nil if none has one.
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
