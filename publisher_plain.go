package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// plainPublisher writes to plain BuffStreams peers. They have neither acks nor topic names: a message is confirmed when
// the writer took it.
type plainPublisher struct {
	publisher *Publisher

	mu      sync.Mutex                // guards the fields below
	dialing map[netio.Target]*dialing // under way
	used    map[netio.Target]int      // by topics, or until all is written; another Publisher of the Manager may have dialed them
	lost    []error                   // of addresses that are used no more, for flush
}

// dialing is the first attempt to connect to an address, which the calls that need it share.
type dialing struct {
	began time.Time
	done  chan struct{} // closed when err is final
	err   error
}

func newPlainPublisher(p *Publisher) *plainPublisher {
	return &plainPublisher{publisher: p, dialing: map[netio.Target]*dialing{}, used: map[netio.Target]int{}}
}

// publish writes the messages to the topic's address; of a route, to the first that takes them.
func (p *plainPublisher) publish(s *topicState, messages []*message.Message) error {
	topic := s.topic
	wait := plainWait{publisher: p.publisher, state: s, first: messages[0], timeout: p.publisher.cfg.PublishTimeout}
	defer wait.end()
	targets, err := p.targets(s, &wait)
	if err != nil {
		return &PublishError{Topic: topic, NotSent: messages, Err: err}
	}
	defer endAll(targets)
	buf := make([]byte, 0, 512)
	for i, msg := range messages {
		if buf, err = p.publisher.marshalOne(buf[:0], topic, msg); err != nil {
			return &PublishError{Topic: topic, NotSent: messages[i:], Err: err}
		}
		if limit := p.publisher.cfg.MaxMessageSize; len(buf) > limit {
			err := &TooLargeError{UUID: msg.UUID, Size: len(buf), Limit: limit}
			return &PublishError{Topic: topic, Peer: targets[0].peer, NotSent: messages[i:], Err: err}
		}
		if err = p.writeFirst(&wait, targets, buf); err != nil {
			return &PublishError{Topic: topic, Peer: targets[0].peer, NotSent: messages[i:], Err: err}
		}
	}
	return nil
}

// plainWait bounds what one Publish call waits for. Most calls wait for nothing, and need no context.
type plainWait struct {
	publisher *Publisher
	state     *topicState
	first     *message.Message
	timeout   time.Duration
	ctx       context.Context // nil before the first wait
	cancel    context.CancelFunc
	cause     *atomic.Pointer[error] // what it waits for now; nil before the first wait
}

// begin returns the context of the call's waits, whose time runs from the first of them. Once they have taken long, the
// log has the cause of the present one.
func (w *plainWait) begin(cause error) context.Context {
	if w.ctx == nil {
		w.ctx, w.cancel = w.publisher.callContext(w.first)
		if w.timeout > 0 {
			ctx, cancel := context.WithTimeout(w.ctx, w.timeout)
			outer := w.cancel
			w.ctx, w.cancel = ctx, func() { cancel(); outer() }
		}
		why, p, state, began := new(atomic.Pointer[error]), w.publisher, w.state, time.Now()
		why.Store(&cause)
		say := time.AfterFunc(longWait, func() { p.sayWait(state, began, *why.Load()) })
		outer := w.cancel
		w.cause, w.cancel = why, func() { say.Stop(); outer() }
	}
	w.cause.Store(&cause)
	return w.ctx
}

// within is begin for a wait that takes no longer than patience.
func (w *plainWait) within(cause error, patience time.Duration) (context.Context, context.CancelFunc) {
	ctx := w.begin(cause)
	if patience == wholeCall {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, patience)
}

func (w *plainWait) end() {
	if w.cancel != nil {
		w.cancel()
	}
}

// failure says why a wait has ended; cause is why it takes so long.
func (w *plainWait) failure(err, cause error) error {
	switch {
	case w.publisher.ctx.Err() != nil || errors.Is(err, pool.ErrClosed):
		return w.publisher.closedError()
	case errors.Is(err, context.DeadlineExceeded):
		return &TimeoutError{Cause: cause}
	}
	return err
}

var (
	errNotTaken  = errors.New("the peer takes nothing")
	errNoConnect = errors.New("there is no connection yet")
	errNoRoom    = errors.New("no room")
)

// noWait is the context of a write that is not to wait for room.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errNoRoom)
	return ctx
}()

// targets finds the addresses of a topic, that with the lowest priority first. The caller must call endAll.
func (p *plainPublisher) targets(s *topicState, wait *plainWait) ([]*target, error) {
	r := s.resolved.Load()
	if r == nil {
		d, ok, err := parseTopic(s.topic, p.publisher.cfg.Resolver != nil)
		if err == nil && ok && d.name != "" {
			return nil, fmt.Errorf("%w: the plain wire has no topic names, so that %.200q would reach its address without one; use host:port", ErrBadTopic, s.topic)
		}
		w := p.publisher.newCallWait(s, wait.first)
		defer w.end()
		if r, err = p.publisher.resolve(w, s); err != nil {
			return nil, err
		}
		wait.timeout = w.left()
	}
	for !enterAll(r.targets) { // another route has taken its place
		r = s.resolved.Load()
	}
	if len(r.targets) == 1 {
		return r.targets, nil
	}
	ordered := slices.Clone(r.targets)
	slices.SortStableFunc(ordered, func(a, b *target) int { return a.Priority - b.Priority })
	return ordered, nil
}

// enterAll begins a use of targets by a call, unless one of them was given up.
func enterAll(targets []*target) bool {
	for i, t := range targets {
		if !t.enter() {
			endAll(targets[:i])
			return false
		}
	}
	return true
}

func endAll(targets []*target) {
	for _, t := range targets {
		t.end()
	}
}

// writeFirst writes a message to the first address that takes it. One that is silent, or full, is waited for only while no
// other takes it, and then in turns.
func (p *plainPublisher) writeFirst(wait *plainWait, targets []*target, data []byte) error {
	if len(targets) == 1 {
		return p.write(wait, targets[0].at, data, wholeCall)
	}
	for patience := time.Duration(0); ; patience = freshFor {
		var errs []error
		late := false
		for _, t := range targets {
			err := p.write(wait, t.at, data, patience)
			if err == nil {
				return nil
			}
			errs, late = append(errs, err), late || errors.Is(err, ErrTimeout)
		}
		if !late || wait.ctx.Err() != nil {
			return errors.Join(errs...)
		}
	}
}

// wholeCall is the patience of a write that may take all the time that its call has.
const wholeCall time.Duration = -1

// write hands one message to the address's writer, which it dials the first time. It waits no longer than patience, and,
// without any, only for a connection that is being made, while that is fresh.
func (p *plainPublisher) write(wait *plainWait, t netio.Target, data []byte, patience time.Duration) error {
	m, key := p.publisher.manager.plain, formatAddress(t) // tells TLS from plaintext
	_, err := m.WriteContext(noWait, key, data)
	switch {
	case errors.Is(err, pool.ErrNotOpened):
		if err := p.dial(wait, t, patience); err != nil {
			return wait.failure(err, errNoConnect)
		}
	case err != nil && !errors.Is(err, errNoRoom):
		return wait.failure(err, errNotTaken)
	case err == nil:
		return nil
	}
	ctx, cancel := wait.within(errNotTaken, patience)
	defer cancel()
	if _, err = m.WriteContext(ctx, key, data); err != nil {
		return wait.failure(err, errNotTaken)
	}
	return nil
}

// dial makes the first attempt to connect to an address, or waits for the one that is under way.
func (p *plainPublisher) dial(wait *plainWait, t netio.Target, patience time.Duration) error {
	cfg, err := p.config(t)
	if err != nil {
		return err
	}
	p.mu.Lock()
	d := p.dialing[t]
	if d == nil {
		d = &dialing{done: make(chan struct{}), began: time.Now()}
		p.dialing[t] = d
		go func() { // ends with the attempt, which its time-out and Manager.Close bound
			d.err = p.publisher.manager.dialPlain(t, cfg)
			p.mu.Lock()
			delete(p.dialing, t)
			p.mu.Unlock()
			close(d.done)
		}()
	}
	p.mu.Unlock()
	if patience == 0 {
		patience = max(0, freshFor-time.Since(d.began))
	}
	ctx, cancel := wait.within(errNoConnect, patience)
	defer cancel()
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// plainCloseGrace is how long a writer goes on sending at its own Close: the Publisher or the Manager that closes it
// has flushed it within its time before.
const plainCloseGrace = 100 * time.Millisecond

func (p *plainPublisher) config(t netio.Target) (cfg pool.WriterConfig, err error) {
	cfg = pool.WriterConfig{
		Network: t.Network, Address: t.Address, Key: formatAddress(t), MaxMessageSize: p.publisher.cfg.MaxMessageSize,
		CloseTimeout: plainCloseGrace,
	}
	cfg.Hooks = []hooks.Hook{p.publisher.manager.peers.of(t, &p.publisher.manager.told)}
	if cfg.TLSConfig, err = p.publisher.manager.clientTLS(t); err != nil {
		return cfg, err
	}
	if p.publisher.cfg.OnFailure != nil {
		cfg.OnFailure = func(failed pool.Failure) { p.publisher.failures.add(failed.Address, failed.Payload, failed.Err) }
	}
	return cfg, nil
}

// flush waits until everything written so far is with the kernel: a plain peer says no more.
func (p *plainPublisher) flush(ctx context.Context) error {
	p.mu.Lock()
	targets, errs := slices.Collect(maps.Keys(p.used)), p.lost
	p.lost = nil
	p.mu.Unlock()
	for _, t := range targets {
		if err := p.publisher.manager.plain.Flush(ctx, formatAddress(t)); err != nil && !errors.Is(err, pool.ErrNotOpened) {
			errs = append(errs, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range targets {
		p.forgetLocked(t)
	}
	return errors.Join(errs...)
}
