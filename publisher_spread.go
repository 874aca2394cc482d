package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
)

// callWait bounds what one Publish call waits for: one time for all of it.
type callWait struct {
	publisher *Publisher
	state     *topicState
	ctx       context.Context // ends with Close, or with the first message's context
	cancel    context.CancelFunc
	timeout   time.Duration // 0: there is no bound
	began     time.Time     // zero: the time has not begun
	deadline  time.Time     // zero: there is none, or the time has not begun
	said      *atomic.Bool  // the log has the reason of the wait
}

// newCallWait returns the bound of a call of Publish; first is nil for what is no call of the user's.
func (p *Publisher) newCallWait(s *topicState, first *message.Message) *callWait {
	w := &callWait{publisher: p, state: s, ctx: p.ctx, cancel: func() {}, timeout: p.cfg.PublishTimeout, said: new(atomic.Bool)}
	if first != nil {
		w.ctx, w.cancel = p.callContext(first)
	}
	w.said.Store(first == nil)
	return w
}

// begin begins the call's time, unless it has begun. Most calls have one part and wait for nothing before it: they look
// at no clock. It must be called before the call goes on in several goroutines.
func (w *callWait) begin() {
	if !w.began.IsZero() {
		return
	}
	w.began = time.Now()
	if w.timeout > 0 {
		w.deadline = w.began.Add(w.timeout)
	}
}

func (w *callWait) end() { w.cancel() }

// within returns the same bound for a part of the call that another context ends too. The call's time must have begun.
func (w *callWait) within(ctx context.Context) *callWait {
	part := *w
	part.ctx = ctx
	return &part
}

// left is the time that is left; 0: there is no bound.
func (w *callWait) left() time.Duration {
	if w.deadline.IsZero() {
		return w.timeout
	}
	return max(time.Nanosecond, time.Until(w.deadline))
}

// wait waits for an event, or until a moment, which may be zero. The error says why it waited in vain: a time-out
// without a cause, ErrPublisherClosed or that of the context. Once the call has waited for long, the log says why.
func (w *callWait) wait(event <-chan struct{}, until time.Time, why func() error) error {
	w.begin()
	for {
		next, ends := until, !w.deadline.IsZero() && (until.IsZero() || w.deadline.Before(until))
		if ends {
			next = w.deadline
		}
		say := w.began.Add(longWait)
		says := !w.said.Load() && (next.IsZero() || say.Before(next))
		if says {
			next = say
		}
		expired, err := w.waitUntil(event, next)
		switch {
		case !expired:
			return err
		case says:
			if w.said.CompareAndSwap(false, true) {
				w.publisher.sayWait(w.state, w.began, why())
			}
		case ends:
			return ErrTimeout
		default:
			return nil
		}
	}
}

// waitUntil waits for an event, for a moment, which may be zero, or for the end of the call's context.
func (w *callWait) waitUntil(event <-chan struct{}, moment time.Time) (expired bool, err error) {
	var over <-chan time.Time
	if !moment.IsZero() {
		timer := time.NewTimer(time.Until(moment))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-event:
		return false, nil
	case <-over:
		return true, nil
	case <-w.ctx.Done():
		if w.publisher.ctx.Err() != nil {
			return false, ErrPublisherClosed
		}
		return false, w.ctx.Err()
	case <-w.publisher.manager.ended.Done():
		return false, w.publisher.closedError()
	}
}

// fate is what became of one message of a call.
type fate int

const (
	arrived fate = iota // it reached its confirm level
	notSent
	unknown
)

// verdict is what became of the messages of a call in one group of addresses.
type verdict struct {
	fates []fate // nil: all arrived
	peers []string
	errs  []error
	left  bool // the group is in the route no longer, and has not got them all
}

// nothing tells whether no message was sent, of those that did not all arrive.
func (v *verdict) nothing() bool {
	return !slices.ContainsFunc(v.fates, func(f fate) bool { return f != notSent })
}

// spread sends messages to the addresses that the route's policy chooses, and waits for all of them.
func (p *Publisher) spread(w *callWait, s *topicState, r *resolved, messages []*message.Message) error {
	if ok, err := p.sendDirect(s, r, messages, w.left()); ok {
		return err
	}
	for {
		verdicts := p.sendGroups(w, r.groups, messages)
		if verdicts == nil {
			return nil
		}
		p.mu.Lock() // a route that is being adopted is complete then
		next := s.resolved.Load()
		p.mu.Unlock()
		if next == r || slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.left || !v.nothing() }) {
			return r.publishError(messages, verdicts)
		}
		r = next // all have left the route before anything was sent
	}
}

// sendGroups sends messages to groups of addresses, side by side. It returns nil if all of them have got all messages.
func (p *Publisher) sendGroups(w *callWait, groups []*group, messages []*message.Message) []verdict {
	if len(groups) == 1 {
		v := p.sendGroup(w, groups[0], messages)
		if v.errs == nil {
			return nil
		}
		v.left = groups[0].latest().left()
		return []verdict{v}
	}
	w.begin()
	verdicts := make([]verdict, len(groups))
	var sending sync.WaitGroup
	for i, g := range groups[1:] {
		sending.Go(func() { verdicts[i+1] = p.sendToOne(w, g, messages) }) // ends in the call's time
	}
	verdicts[0] = p.sendToOne(w, groups[0], messages)
	sending.Wait()
	if !slices.ContainsFunc(verdicts, func(v verdict) bool { return v.errs != nil }) {
		return nil
	}
	return verdicts
}

// sendToOne is sendGroup for one of several groups. It does not wait for a group that leaves the route: the others are
// all then. What the group has taken is kept for it.
func (p *Publisher) sendToOne(w *callWait, g *group, messages []*message.Message) verdict {
	if !g.dynamic {
		return p.sendGroup(w, g, messages)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	defer context.AfterFunc(g.member, cancel)()
	v := p.sendGroup(w.within(ctx), g, messages)
	if v.left = v.errs != nil && g.latest().left(); v.left {
		for i, err := range v.errs {
			if errors.Is(err, context.Canceled) {
				v.errs[i] = errLeftRoute
			}
		}
	}
	return v
}

// sendGroup sends messages to one group of addresses, to several addresses side by side.
func (p *Publisher) sendGroup(w *callWait, g *group, messages []*message.Message) (v verdict) {
	one, more, err := p.split(w, g, messages)
	switch {
	case err != nil:
		v.fail(len(messages), g.label(), err)
		for i := range v.fates {
			v.fates[i] = notSent
		}
	case more == nil:
		v.note(len(messages), &one, p.sendPart(w, g, &one))
		one.detach()
	default:
		w.begin()
		results := make([]sendResult, len(more))
		var sending sync.WaitGroup
		for i := range more[1:] {
			sending.Go(func() { results[i+1] = p.sendPart(w, g, &more[i+1]) }) // ends in the call's time
		}
		results[0] = p.sendPart(w, g, &more[0])
		sending.Wait()
		for i := range more {
			v.note(len(messages), &more[i], results[i])
			more[i].detach()
		}
	}
	return v
}

// sendPart sends a part of a call, and elsewhere what comes back because its stream leaves its address.
func (p *Publisher) sendPart(w *callWait, g *group, part *part) (sent sendResult) {
	sent.enqueued, sent.lacking, sent.err = p.send(w.ctx, part.target, part.flow, part.messages, w.left())
	if back := (*sender.WithdrawnError)(nil); errors.As(sent.err, &back) {
		return p.sendAgain(w, g, part, sent, back)
	}
	return sent
}

// of is what became of one message.
func (v *verdict) of(i int) fate {
	if v.fates == nil {
		return arrived
	}
	return v.fates[i]
}

// note adds what became of a part.
func (v *verdict) note(total int, part *part, sent sendResult) {
	if sent.err == nil {
		return
	}
	v.fail(total, part.target.peer, sent.err)
	at := func(i int) int { // in the call
		if part.index == nil {
			return i
		}
		return part.index[i]
	}
	for i := sent.enqueued; i < len(part.messages); i++ {
		v.fates[at(i)] = notSent
	}
	for _, r := range sent.lacking {
		for i := r.First; i <= r.Last; i++ {
			v.fates[at(int(i))] = unknown
		}
	}
	for _, r := range sent.missing {
		for i := r.First; i <= r.Last; i++ {
			v.fates[at(int(i))] = notSent
		}
	}
}

// fail notes why messages did not arrive.
func (v *verdict) fail(total int, peer string, err error) {
	if v.fates == nil {
		v.fates = make([]fate, total)
	}
	v.peers, v.errs = append(v.peers, peer), append(v.errs, err)
}

// label names a group in errors.
func (g *group) label() string {
	const most = 3
	var peers []string
	for i, t := range g.targets {
		if i == most {
			peers = append(peers, fmt.Sprintf("%d more", len(g.targets)-most))
			break
		}
		peers = append(peers, t.peer)
	}
	return strings.Join(peers, ", ")
}

// publishError accounts for each message of a call. A message that some groups of addresses have and others lack is
// unknown. Groups that have left the route count only where no other is left.
func (r *resolved) publishError(messages []*message.Message, verdicts []verdict) error {
	failed := &PublishError{Topic: r.targets[0].topic}
	some := slices.ContainsFunc(verdicts, func(v verdict) bool { return !v.left })
	var peers []string
	var errs []error
	for i, v := range verdicts {
		if v.left && some {
			continue
		}
		for k, err := range v.errs {
			peers = append(peers, v.peers[k])
			switch {
			case len(r.groups) > 1:
				err = fmt.Errorf("group %d (%s), at %q: %w", i+1, r.groups[i].label(), v.peers[k], err)
			case len(v.errs) > 1:
				err = fmt.Errorf("at %q: %w", v.peers[k], err)
			}
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	for i, msg := range messages {
		lacks, sent := false, false
		for k := range verdicts {
			v := &verdicts[k]
			lacks = lacks || v.of(i) != arrived && !(v.left && some)
			sent = sent || v.of(i) != notSent
		}
		switch {
		case !lacks:
		case !sent:
			failed.NotSent = append(failed.NotSent, msg)
		default:
			failed.Unknown = append(failed.Unknown, msg)
		}
	}
	failed.Peer, failed.Err = strings.Join(peers, ", "), errors.Join(errs...)
	if len(errs) == 1 {
		failed.Err = errs[0]
	}
	return failed
}
