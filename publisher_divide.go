package buffstreams

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
)

// divide gives what a stream that leaves its address has not sent, and that no caller waits for, to the streams of
// other addresses that are ready and have room, one after the other: it would wait for the handlers of the old one.
func (p *Publisher) divide(f *routedStream, st *sender.Stream) {
	g := f.group.latest()
	candidates := g.candidates(time.Now())
	for _, at := range policy.Usable(nil, candidates) {
		t := g.targets[at]
		if !f.mayMoveTo(t.addr) || !t.enter() {
			continue
		}
		if to := p.heir(g, t); to != nil {
			p.divided(f, t, st.Divide(to), to)
		}
		t.end()
	}
}

// heir returns the stream for new messages at a target, or nil if none begins there any more: the Publisher can be
// closed, while its Manager goes on.
func (p *Publisher) heir(g *group, t *target) *sender.Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left {
		return nil
	}
	st, _ := p.flowLocked(g, t).stream.(*sender.Stream)
	return st
}

// divided tells the hooks of messages that have gone to another address.
func (p *Publisher) divided(f *routedStream, to *target, n int, st *sender.Stream) {
	if n == 0 {
		return
	}
	from := f.addr.Load()
	to.addr.sender.Tell(func(set *hook.Set) {
		set.Moved(hooks.Moved{
			Topic: f.name, From: formatAddress(from.target), To: formatAddress(to.addr.target), Messages: n, Tenure: st.Tenure(),
		})
	})
}
