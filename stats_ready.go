package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// ErrNotReady is what every *NotReadyError matches.
var ErrNotReady = errors.New("buffstreams: not ready")

// NotReadyError says why something is not ready.
type NotReadyError struct {
	Reasons []string // one for each address, listener or topic that is not, with its name
}

func (e *NotReadyError) Error() string {
	return fmt.Sprintf("%v: %s", ErrNotReady, strings.Join(e.Reasons, "; "))
}

// Unwrap makes errors.Is(err, ErrNotReady) true.
func (e *NotReadyError) Unwrap() error { return ErrNotReady }

// readyPoll is the time between two looks of Ready.
const readyPoll = 20 * time.Millisecond

// maxReasons bounds the reasons that are named.
const maxReasons = 20

// awaitReady waits until look finds no reason, or ctx is done. It looks at least once.
func awaitReady(ctx context.Context, look func() []string) error {
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		reasons := look()
		if len(reasons) == 0 {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return &NotReadyError{Reasons: reasons}
		}
	}
}

// Ready waits until the Publisher could send what is published to the topics that it has used, or ctx is done: then the
// error is a *NotReadyError that says which cannot be reached and why. With a ctx that is done it only looks. Of the
// addresses among which a route chooses one is enough. A topic to which nothing was published yet counts as ready, and
// so does an address that has nothing to send: Ready dials nothing. With an Outbox it is the Outbox that matters, and
// not the addresses. A Publisher that is closed is not ready.
func (p *Publisher) Ready(ctx context.Context) error { return awaitReady(ctx, p.notReady) }

func (p *Publisher) notReady() []string {
	if p.closed.Load() {
		return []string{"the Publisher is closed"}
	}
	var reasons reasons
	if p.relay != nil {
		for _, err := range outboxReady(p.cfg.Outbox) {
			reasons.add("the Outbox %s: %v", outboxName(p.cfg.Outbox), err)
		}
		return reasons.sorted()
	}
	p.mu.Lock()
	topics := slices.Collect(maps.Values(p.topics))
	for _, s := range topics {
		if s.failed != nil && s.resolved.Load() == nil {
			reasons.add("topic %.100q has no route: %v", s.topic, netio.Sanitize(s.failed))
		}
	}
	p.mu.Unlock()
	for _, s := range topics {
		if r := s.resolved.Load(); r != nil {
			for _, g := range r.groups {
				reasons = append(reasons, g.notReady()...)
			}
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons).sorted()
}

// outboxReady looks whether an Outbox takes messages, and returns why not.
func outboxReady(o store.Outbox) []error {
	user := o
	if g, ok := o.(*guardedOutbox); ok {
		user = g.user
	}
	err := o.Err()
	if readier, ok := user.(store.Readier); ok {
		look, cancel := context.WithCancel(context.Background())
		cancel()
		err = hook.Call(nameOutbox, func() error { return readier.Ready(look) })
	}
	var several *store.NotReadyError
	switch {
	case errors.As(err, &several):
		return several.Reasons
	case err != nil:
		return []error{err}
	}
	return nil
}

// notReady says why none of the group's addresses takes messages; nil: one does, or would if there were any.
func (g *group) notReady() (reasons reasons) {
	for _, t := range g.targets {
		if t.addr == nil { // on the plain wire
			return nil
		}
		switch state, _, err := t.addr.sender.Status(); state {
		case sender.Connecting, sender.Draining:
			reasons.add("%s is %s", formatAddress(t.addr.target), state)
		case sender.Failed, sender.Gone, sender.Silent:
			if err != "" {
				err = ": " + err
			}
			reasons.add("%s is %s%s", formatAddress(t.addr.target), state, err)
		default:
			return nil
		}
	}
	return reasons
}

// Ready waits until every listener of the Subscriber's Manager takes messages, or ctx is done: then the error is a
// *NotReadyError that says which do not and why. With a ctx that is done it only looks. It opens no listener; a
// Subscriber without subscriptions is not ready.
func (s *Subscriber) Ready(ctx context.Context) error { return awaitReady(ctx, s.notReady) }

func (s *Subscriber) notReady() []string {
	if s.isClosed() {
		return []string{"the Subscriber is closed"}
	}
	reasons := reasons(s.manager.notReady())
	if len(s.subscriptions()) == 0 {
		reasons.add("the Subscriber has no subscription")
	}
	return reasons.sorted()
}

// Ready waits until no Ready channel holds topics back, and every listener takes messages: every group that was
// declared for a topic has subscribed. If ctx is done before, the error is a *NotReadyError that says what is missing.
// With a ctx that is done it only looks. It opens and dials nothing; peers that cannot be reached do not count: see
// Publisher.Ready.
func (m *Manager) Ready(ctx context.Context) error { return awaitReady(ctx, m.notReady) }

func (m *Manager) notReady() []string {
	m.mu.Lock()
	closed, held := m.closed, m.holds > 0
	m.mu.Unlock()
	if closed {
		return []string{"the Manager is closed"}
	}
	var reasons reasons
	if held {
		reasons.add("a Ready channel is not closed yet")
	}
	for t, l := range m.openListeners() {
		draining, missing := l.Missing()
		if draining {
			reasons.add("the listener at %s is draining", formatAddress(t))
		}
		for topic, groups := range missing {
			reasons.add("topic %.100q at %s waits for declared groups: %.200q", topic, formatAddress(t), groups)
		}
	}
	return reasons.sorted()
}

// reasons are why something is not ready.
type reasons []string

func (r *reasons) add(format string, args ...any) { *r = append(*r, fmt.Sprintf(format, args...)) }

// sorted returns the reasons in order, the first maxReasons and how many more there are.
func (r reasons) sorted() []string {
	slices.Sort(r)
	if more := len(r) - maxReasons; more > 0 {
		return append(slices.Clip(r[:maxReasons]), fmt.Sprintf("and %d more", more))
	}
	return r
}
