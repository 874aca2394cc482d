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
	used    map[netio.Target]bool     // ever; another Publisher of the Manager may have dialed them
}

// dialing is the first attempt to connect to an address, which the calls that need it share.
type dialing struct {
	done chan struct{} // closed when err is final
	err  error
}

func newPlainPublisher(p *Publisher) *plainPublisher {
	return &plainPublisher{publisher: p, dialing: map[netio.Target]*dialing{}, used: map[netio.Target]bool{}}
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
	buf := make([]byte, 0, 512)
	for i, msg := range messages {
		if buf, err = p.publisher.marshalOne(buf[:0], topic, msg); err != nil {
			return &PublishError{Topic: topic, NotSent: messages[i:], Err: err}
		}
		if limit := p.publisher.cfg.MaxMessageSize; len(buf) > limit {
			err := &TooLargeError{UUID: msg.UUID, Size: len(buf), Limit: limit}
			return &PublishError{Topic: topic, Peer: targets[0].Address, NotSent: messages[i:], Err: err}
		}
		if err = p.writeFirst(&wait, targets, buf); err != nil {
			return &PublishError{Topic: topic, Peer: targets[0].Address, NotSent: messages[i:], Err: err}
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

// targets finds the addresses of a topic, that with the lowest priority first.
func (p *plainPublisher) targets(s *topicState, wait *plainWait) ([]netio.Target, error) {
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
	if len(r.targets) == 1 {
		return []netio.Target{r.targets[0].at}, nil
	}
	ordered := slices.Clone(r.targets)
	slices.SortStableFunc(ordered, func(a, b *target) int { return a.Priority - b.Priority })
	targets := make([]netio.Target, len(ordered))
	for i, t := range ordered {
		targets[i] = t.at
	}
	return targets, nil
}

func (p *plainPublisher) writeFirst(wait *plainWait, targets []netio.Target, data []byte) error {
	var errs []error
	for _, t := range targets {
		err := p.write(wait, t, data)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// write hands one message to the address's writer, which it dials the first time.
func (p *plainPublisher) write(wait *plainWait, t netio.Target, data []byte) error {
	m, key := p.publisher.manager.plain, formatAddress(t) // tells TLS from plaintext
	_, err := m.WriteContext(noWait, key, data)
	switch {
	case errors.Is(err, pool.ErrNotOpened):
		if err := p.dial(wait.begin(errNoConnect), t); err != nil {
			return wait.failure(err, errNoConnect)
		}
	case err != nil && !errors.Is(err, errNoRoom):
		return wait.failure(err, errNotTaken)
	case err == nil:
		return nil
	}
	if _, err = m.WriteContext(wait.begin(errNotTaken), key, data); err != nil {
		return wait.failure(err, errNotTaken)
	}
	return nil
}

// dial makes the first attempt to connect to an address, or waits for the one that is under way, until ctx is done.
func (p *plainPublisher) dial(ctx context.Context, t netio.Target) error {
	cfg, err := p.config(t)
	if err != nil {
		return err
	}
	p.mu.Lock()
	d := p.dialing[t]
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		p.dialing[t] = d
		go func() { // ends with the attempt, which its time-out and Manager.Close bound
			d.err = p.publisher.manager.dialPlain(cfg)
			p.mu.Lock()
			delete(p.dialing, t)
			p.mu.Unlock()
			close(d.done)
		}()
	}
	p.mu.Unlock()
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

// use notes an address that a topic leads to, for flush.
func (p *plainPublisher) use(t netio.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[t] = true
}

// flush waits until everything written so far is with the kernel: a plain peer says no more.
func (p *plainPublisher) flush(ctx context.Context) error {
	p.mu.Lock()
	targets := slices.Collect(maps.Keys(p.used))
	p.mu.Unlock()
	var errs []error
	for _, t := range targets {
		if err := p.publisher.manager.plain.Flush(ctx, formatAddress(t)); err != nil && !errors.Is(err, pool.ErrNotOpened) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
