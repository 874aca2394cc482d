package apisim

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// router does what message.Router does with its subscriptions, in the same order: at its Close it cancels the contexts
// of Subscribe, may close the subscribers meanwhile, reads until the channels are closed, and waits for the handlers.
// The real one holds a mutex while it waits, under which the clock of a bubble stands still.
type router struct {
	ctx      context.Context
	cancel   context.CancelFunc
	timeout  time.Duration
	closes   bool // the subscribers
	handlers sync.WaitGroup

	mu     sync.Mutex
	subs   map[subscribing]bool
	closed bool
	done   chan struct{}
}

func newRouter(timeout time.Duration, closes bool) *router {
	ctx, cancel := context.WithCancel(context.Background())
	return &router{ctx: ctx, cancel: cancel, timeout: timeout, closes: closes, subs: map[subscribing]bool{}, done: make(chan struct{})}
}

// add subscribes, and runs a goroutine for each message. A handler's error is a Nack.
func (r *router) add(ctx context.Context, topic string, s subscribing, handle func(*message.Message) error, ended func()) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.ctx, cancel)
	out, err := s.Subscribe(ctx, topic)
	if err != nil {
		stop()
		cancel()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subs[s] = true
	r.handlers.Go(func() {
		defer cancel()
		defer ended()
		var running sync.WaitGroup
		for m := range out {
			running.Go(func() {
				if handle(m) != nil {
					m.Nack()
				} else {
					m.Ack()
				}
			})
		}
		running.Wait()
	})
	return nil
}

var errRouterTimeout = errors.New("router close timeout")

// Close is the Router's.
func (r *router) Close() error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	subs := r.subs
	r.mu.Unlock()
	if !first {
		<-r.done
		return nil
	}
	defer close(r.done)
	r.cancel()
	if r.closes {
		for s := range subs {
			go func() { _ = s.Close() }()
		}
	}
	ended := make(chan struct{})
	go func() {
		r.handlers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(r.timeout):
		return errRouterTimeout
	}
}
