package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// CloseListener closes the listener at an address, in the form in which it was listened at, and the channels of its
// subscriptions. Its publishers keep what was not handled. What was received from publishers that are gone is handled
// first, as far as there are subscriptions, until ctx is done, or the time of a Close of the Manager; what is left is
// reported by an *UndeliveredError and given to OnFailure. It returns pool.ErrNotOpened if nothing listens there. A
// call for a listener that another one closes waits for that, until its own ctx is done, and returns the same.
func (m *Manager) CloseListener(ctx context.Context, address string) error {
	target, err := parseAddress(address)
	if err != nil {
		return err
	}
	c, first := m.beginClosing(target)
	if !first {
		select {
		case <-c.done:
			return c.err
		case <-ctx.Done():
			return fmt.Errorf("buffstreams: the listener at %.200q is closing: %w", address, ctx.Err())
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.expire()
	defer context.AfterFunc(c.expired, cancel)()
	c.err = m.despiteHooks(ctx, func() error {
		left := leftovers{failures: &m.failures}
		return errors.Join(m.closeListener(ctx, c.opening, &left), left.orNil())
	})
	m.mu.Lock()
	delete(m.closing, c)
	m.mu.Unlock()
	close(c.done)
	return c.err
}

// closingListener is a call of CloseListener.
type closingListener struct {
	target  netio.Target
	opening *opening      // what it closes; nil: nothing listens there
	done    chan struct{} // closed when err is final
	err     error
	expired context.Context // ends when the Manager's Close has no time left
	expire  context.CancelFunc
}

// beginClosing returns the call of CloseListener that closes what listens at a target; first: it is the caller's, which
// alone has the listener from now on. The Manager's Close closes everything that is left itself.
func (m *Manager) beginClosing(t netio.Target) (c *closingListener, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.listeners[t]
	if o == nil || m.closed {
		for c := range m.closing {
			if c.target == t {
				return c, false
			}
		}
	}
	if m.closed {
		return &closingListener{done: m.done, err: pool.ErrNotOpened}, false
	}
	delete(m.listeners, t)
	c = &closingListener{target: t, opening: o, done: make(chan struct{})}
	c.expired, c.expire = context.WithCancel(context.Background())
	if m.closing == nil {
		m.closing = map[*closingListener]struct{}{}
	}
	m.closing[c] = struct{}{}
	return c, true
}

// awaitClosing waits for the calls of CloseListener, whose time is over with ctx.
func (m *Manager) awaitClosing(ctx context.Context) {
	m.mu.Lock()
	closing := maps.Clone(m.closing)
	m.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		for c := range closing {
			c.expire()
		}
	})()
	for c := range closing {
		<-c.done
	}
}

// Close hands over what the Manager holds, within CloseTimeout: what was published is received by its peers, and what
// was received from publishers that are gone is handled by the subscriptions that are still there, whose handlers have
// as much time. Then it closes every listener and every connection. What is left is reported by an *UndeliveredError
// and given to OnFailure. Publish calls that wait return an error. Later and concurrent calls wait for the first and
// return the same.
func (m *Manager) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.CloseTimeout)
	defer cancel()
	return m.closeWithin(ctx)
}

// closeWithin is Close with a time-out of the caller's.
func (m *Manager) closeWithin(ctx context.Context) error {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	m.mu.Unlock()
	if !first {
		<-m.done
		return m.closeErr
	}
	m.closeErr = m.despiteHooks(ctx, func() error { return m.shutDown(ctx) })
	close(m.done)
	return m.closeErr
}

// despiteHooks ends something, and does not wait longer than a while after ctx for it if a hook has not returned by
// then: what that holds up ends when it returns.
func (m *Manager) despiteHooks(ctx context.Context, end func() error) error {
	if m.hooks == nil {
		return end()
	}
	ended := make(chan error, 1)
	go func() { ended <- end() }() // ends with end, which the caller waits for, or with a hook that does not return
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	for wait := endGrace + failureGrace; ; wait = 10 * time.Millisecond {
		select {
		case err := <-ended:
			return err
		case <-time.After(wait):
		}
		if n := m.hooks.Running(); n > 0 {
			return hooksLate(n)
		}
	}
}

// hooksLate is the error of hooks that have not returned.
func hooksLate(n int) error {
	return fmt.Errorf("buffstreams: %s has not returned within CloseTimeout: %d calls are left", nameHooks, n)
}

// shutDown is Close, once.
func (m *Manager) shutDown(ctx context.Context) error {
	last, cancel := withGrace(ctx, lastGrace)
	defer cancel()
	m.mu.Lock()
	listeners, senders, writers := maps.Clone(m.listeners), m.sendersLocked(), m.writers
	m.mu.Unlock()

	defer context.AfterFunc(ctx, func() { // the ends of senders, which come first, may take longer
		for _, o := range listeners {
			if isClosed(o.done) && o.err == nil {
				m.subscriptions.expire(o.listener)
			}
		}
	})()
	// What arrives at a listener of this Manager is for the listener to account for, so the senders to it end first.
	left := leftovers{failures: &m.failures}
	own := sendersTo(listeners, senders)
	closeSenders(ctx, own, &left)

	errs := make(chan error, len(writers)+len(listeners))
	var closing sync.WaitGroup
	closing.Go(func() { m.awaitClosing(ctx) })
	closing.Go(func() { closeSenders(ctx, without(senders, own), &left) })
	for _, key := range writers {
		closing.Go(func() { errs <- m.flushPlain(ctx, key) }) // plain.Close says what is left
	}
	for t, o := range listeners {
		m.forget(t, o)
		closing.Go(func() {
			if err := m.closeListener(ctx, o, &left); !errors.Is(err, pool.ErrNotOpened) {
				errs <- err
			}
		})
	}
	closing.Wait()
	close(errs)
	m.end()
	m.wg.Wait()
	m.workers.Close()
	all := []error{left.orNil(), m.plain.Close(), m.failures.awaitUntil(last, "ManagerConfig.OnFailure")}
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(append(all, m.told.late())...)
}

// sendersTo returns the senders to some of the listeners: a listener knows who has sent to it, whatever address that
// has dialed. One that has not connected yet is found by its address.
func sendersTo(listeners map[netio.Target]*opening, senders map[netio.Target]*sender.Sender) map[netio.Target]*sender.Sender {
	to := map[netio.Target]*sender.Sender{}
	for t, o := range listeners {
		if !isClosed(o.done) || o.err != nil {
			continue
		}
		bound := t
		bound.Address = o.listener.Addr().String() // the port may have been 0
		for dialed, s := range senders {
			if dialed == bound || o.listener.Knows(s.Publisher()) {
				to[dialed] = s
			}
		}
	}
	return to
}

// closeSenders closes senders when their peers have received everything, or ctx is done. None is closed before all have
// delivered: what another one holds may have to move there.
func closeSenders(ctx context.Context, senders map[netio.Target]*sender.Sender, left *leftovers) {
	var closing sync.WaitGroup
	for more := true; more && ctx.Err() == nil; {
		more = false
		for _, s := range senders {
			if !s.AllDelivered() {
				more = true
				closing.Go(func() { _ = s.FlushAll(ctx) }) // what is left shows below
			}
		}
		closing.Wait()
	}
	for t, s := range senders {
		closing.Go(func() {
			for _, l := range s.Close() {
				left.add(l.Topic, formatAddress(t), l.Message)
			}
		})
	}
	closing.Wait()
}

// closeListener closes a listener when its subscriptions have handled what exists nowhere else, or ctx is done. The
// caller has taken it out of the Manager's.
func (m *Manager) closeListener(ctx context.Context, o *opening, left *leftovers) error {
	if o == nil {
		return pool.ErrNotOpened
	}
	select {
	case <-o.done:
	case <-ctx.Done():
	}
	if !isClosed(o.done) {
		go func() { // ends when Listen returns
			if <-o.done; o.err == nil {
				_ = o.listener.Close(ctx)
			}
		}()
		return errors.New("buffstreams: ManagerConfig.Listen has not returned in time")
	}
	if o.err != nil {
		return pool.ErrNotOpened
	}
	l := o.listener
	defer context.AfterFunc(ctx, func() { m.subscriptions.expire(l) })()
	drain(ctx, l)
	l.AwaitAnswers(ctx) // until then more can arrive, of publishers that are gone by the time they would answer
	poll(ctx, func() bool { return l.OnlyCopies() == 0 })
	answering, stop := withGrace(ctx, closeGrace) // beside the ends of members
	defer stop()
	ending, cancel := withGrace(ctx, endGraceFor(ctx))
	defer cancel()
	l.EndMembers()
	poll(ending, func() bool { return !l.HasMembers() })
	l.AwaitAnswers(answering) // a round trip is longer than some time-outs, and what is not known to be kept counts as lost
	for topic, messages := range l.Unkept() {
		left.add(topic, "", messages...)
	}
	return l.Close(ending)
}

// endGrace is how long Close waits for the ends of subscriptions, and for acks to be written, when its time is over.
const endGrace = 4 * closeGrace

// endGraceFor is endGrace less the time that ctx has been done for, as the senders to a listener end first, but no less
// than what subscriptions take to leave callbacks behind.
func endGraceFor(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok || ctx.Err() == nil {
		return endGrace
	}
	return min(endGrace, max(2*closeGrace, endGrace-time.Since(deadline)))
}

// lastGrace is how long Close goes on in all when its time is over, OnFailure included.
const lastGrace = endGrace + closeGrace/2

// drain drains a listener, which plain peers can hold up, or returns soon after ctx is done: what is not asked whether
// it keeps its messages is taken for one that does.
func drain(ctx context.Context, l listener) {
	ctx, cancel := withGrace(ctx, closeGrace)
	defer cancel()
	drained := make(chan struct{})
	go func() { // ends with the listener's Close at the latest
		l.Drain()
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done():
	}
}

// withGrace returns a context that is done some time after ctx.
func withGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

// poll waits until met returns true, or ctx is done.
func poll(ctx context.Context, met func() bool) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !met() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// leftovers collects the messages that are left undelivered, and gives them to OnFailure.
type leftovers struct {
	failures *failureQueue

	mu   sync.Mutex
	left UndeliveredError
}

func (l *leftovers) add(topic, peer string, messages ...[]byte) {
	l.mu.Lock()
	l.left.add(topic, peer, len(messages))
	l.mu.Unlock()
	for _, m := range messages {
		l.failures.addHeld(topic, m, ErrUndelivered)
	}
}

func (l *leftovers) orNil() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left.orNil()
}

// without returns the senders of all that are not in some.
func without(all, some map[netio.Target]*sender.Sender) map[netio.Target]*sender.Sender {
	rest := maps.Clone(all)
	maps.DeleteFunc(rest, func(t netio.Target, _ *sender.Sender) bool { return some[t] != nil })
	return rest
}
