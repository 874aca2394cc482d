package tests

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/route"
)

const (
	handedOver = 4  // messages that the draining address of drainingAt has been sent
	keeps      = 20 // that its publisher keeps for it
)

// drainingAt is an address whose only handler keeps a message, and that has been sent handedOver of those that its publisher has for it.
type drainingAt struct {
	pub    *buffstreams.Publisher
	sub    *buffstreams.Subscriber
	held   <-chan *message.Message
	second string // the other address of the route
	moved  atomic.Int64
}

func (d *drainingAt) OnMoved(m hooks.Moved) { d.moved.Add(int64(m.Messages)) }

func newDrainingAt(t *testing.T, policy route.Policy, confirm buffstreams.Confirm) *drainingAt {
	first := freeAddress(t)
	d := &drainingAt{second: freeAddress(t)}
	var err error
	d.sub, err = buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: first, CloseTimeout: patience, ConsumerGroup: "g",
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: handedOver}},
	}, nil)
	require.NoError(t, err)
	d.held = subscribe(t, d.sub, "orders")
	d.pub, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.Static{"orders": {Addresses: []string{first, d.second}, Policy: policy, HashKey: "key"}}, Confirm: confirm,
		ManagerConfig: buffstreams.ManagerConfig{
			Acked: quick(buffstreams.AckedConfig{MoveAfter: time.Hour, WindowMessages: keeps}), Hooks: []hooks.Hook{d}, CloseTimeout: patience,
		},
		CloseTimeout: patience,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.pub.Close() })
	return d
}

// awaitPending waits until the publisher keeps n messages.
func (d *drainingAt) awaitPending(t *testing.T, n int) {
	require.Eventually(t, func() bool {
		time.Sleep(time.Until(d.pub.Stats().At.Add(1100 * time.Millisecond)))
		return d.pub.Stats().Topics[0].Pending == n
	}, patience, time.Millisecond)
}

// drain begins to close the subscriber while both addresses are ready.
func (d *drainingAt) drain(t *testing.T) (closed <-chan error) {
	require.Eventually(t, func() bool {
		all := d.pub.Stats().Addresses
		return all[0].State == "ready" && all[1].State == "ready"
	}, patience, 50*time.Millisecond)
	return later(d.sub.Close)
}

// finish lets the handler end, and returns how many messages it and those after it have had.
func (d *drainingAt) finish(busy *message.Message) (n int) {
	busy.Ack()
	n = 1
	for m := range d.held {
		m.Ack()
		n++
	}
	return n
}

// TestRoute_WhatADrainingAddressWasNotSentIsNotHeldUp by what it was sent, neither of the same call nor where no call waits.
func TestRoute_WhatADrainingAddressWasNotSentIsNotHeldUp(t *testing.T) {
	for _, policy := range []route.Policy{route.Failover, route.RoundRobin, route.LeastPending, route.Hash} { // Hash: without keys
		for _, c := range []struct {
			confirm buffstreams.Confirm
			calls   []int // how many messages each has
		}{
			{buffstreams.ConfirmEnqueued, []int{3, 9, 8}},
			{buffstreams.ConfirmReceived, []int{keeps}},
			{buffstreams.ConfirmHandled, []int{keeps}},
			{buffstreams.ConfirmHandled, []int{18, 2}},
			{buffstreams.ConfirmReceived, []int{3 * keeps}}, // most of it is in no window
			{buffstreams.ConfirmEnqueued, []int{3 * keeps}},
		} {
			t.Run(fmt.Sprintf("%v/%v/%v", policy, c.confirm, c.calls), func(t *testing.T) {
				t.Parallel() // each waits for statistics, which are kept for a second
				d := newDrainingAt(t, policy, c.confirm)
				total := 0
				var calls []<-chan error
				for _, n := range c.calls {
					total += n
					calls = append(calls, later(func() error { return d.pub.Publish("orders", newMessages(n)...) }))
				}
				busy := receive(t, d.held)
				d.awaitPending(t, keeps)
				got := counting(t, d.second)
				closed := d.drain(t)
				require.Eventually(t, func() bool { return got.Load() == int64(total-handedOver) }, patience, time.Millisecond,
					"they wait for a handler: %d of %d", got, total)
				if c.confirm == buffstreams.ConfirmHandled {
					require.Empty(t, calls[0], "it waits for what was sent")
				}
				first := d.finish(busy)
				require.NoError(t, requireResult(t, closed))
				for _, call := range calls {
					require.NoError(t, requireResult(t, call))
				}
				require.NoError(t, d.pub.Drain(t.Context()))
				require.EqualValues(t, total, int64(first)+got.Load(), "none is lost, none comes twice")
				require.NoError(t, d.pub.Close())
			})
		}
	}
}

// TestRoute_FlushWaitsForWhatHasGoneElsewhere, also where that happens while it waits.
func TestRoute_FlushWaitsForWhatHasGoneElsewhere(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(*buffstreams.Publisher) error{
		"Flush": func(p *buffstreams.Publisher) error { return p.Flush(context.Background()) },
		"Drain": func(p *buffstreams.Publisher) error { return p.Drain(context.Background()) },
		"Close": (*buffstreams.Publisher).Close,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDrainingAt(t, route.Failover, buffstreams.ConfirmEnqueued)
			require.NoError(t, d.pub.Publish("orders", newMessages(keeps)...))
			busy := receive(t, d.held)
			d.awaitPending(t, keeps)
			other, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: d.second, ConsumerGroup: "g"}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { _ = other.Close() })
			_ = subscribe(t, other, "another") // it listens, and takes nothing of the topic yet
			d.awaitPending(t, keeps)
			var waited atomic.Bool
			result := later(func() error {
				defer waited.Store(true)
				return wait(d.pub)
			})
			time.Sleep(100 * time.Millisecond) // it may begin later, and has to wait all the same
			closed := d.drain(t)
			require.Eventually(t, func() bool { return d.moved.Load() == keeps-handedOver }, patience, time.Millisecond)
			first := d.finish(busy)
			require.NoError(t, requireResult(t, closed))
			require.False(t, waited.Load(), "nothing has taken what went elsewhere")
			messages := subscribe(t, other, "orders")
			for range keeps - first {
				receive(t, messages).Ack()
			}
			require.NoError(t, requireResult(t, result))
		})
	}
}
