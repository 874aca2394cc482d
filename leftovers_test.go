package buffstreams

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/pool"
)

// overtaken is the context of a subscription whose delivery ends while it is looked at.
type overtaken struct {
	*lasting
	end func()
}

func (c *overtaken) Done() <-chan struct{} {
	c.end()
	return c.done
}

// TestContext_NothingWaitsForItsEnd once a call has returned: a program can have one for as long as it runs.
func TestContext_NothingWaitsForItsEnd(t *testing.T) {
	ctx := newLasting()
	later, cancel := withGrace(ctx, time.Hour)
	require.EqualValues(t, 1, ctx.waiting.Load())
	cancel()
	require.Error(t, later.Err())
	m, _, l := newPair(t, AckedConfig{})
	p, err := NewPublisher(PublisherConfig{Manager: m}, nil)
	require.NoError(t, err)
	defer func() { _ = p.Close() }()
	for name, call := range map[string]func() error{
		"withGrace":       func() error { return nil },
		"a failure queue": func() error { return new(failureQueue).await(ctx, "OnFailure") },
		"Flush":           func() error { return p.Flush(ctx) },
		"Drain":           func() error { return p.Drain(ctx) },
		"drain":           func() error { drain(ctx, l); return nil },
		"CloseListener":   func() error { return m.CloseListener(ctx, anyPort.Address) },
		"CloseListener, of one that is not there": func() error {
			if err := m.CloseListener(ctx, "127.0.0.1:1"); !errors.Is(err, pool.ErrNotOpened) {
				return errors.New("it is there")
			}
			return nil
		},
	} {
		require.NoError(t, call(), name)
		require.Zero(t, ctx.waiting.Load(), name)
	}
}

// TestMessageContext_LeavesNothingAtItsSubscription, though the delivery ends while the context is made.
func TestMessageContext_LeavesNothingAtItsSubscription(t *testing.T) {
	for name, ends := range map[string]bool{"before": true, "after": false} {
		base := newLasting()
		c := &messageContext{}
		c.sub = &subscription{base: &overtaken{base, func() {
			if ends {
				c.end()
			}
		}}}
		done := c.Done()
		require.Equal(t, ends, isClosed(done), name)
		c.end()
		<-done
		require.Zero(t, base.waiting.Load(), name)
	}
}

// TestUndeliveredError_NamesAFewParts, and counts the others.
func TestUndeliveredError_NamesAFewParts(t *testing.T) {
	e := &UndeliveredError{}
	require.NoError(t, e.orNil())
	e.add("nothing", "a:1", 0)
	require.NoError(t, e.orNil())
	e.add("orders", "a:1", 1)
	e.add("orders", "", 2)
	e.add("orders", "a:1", 3)
	require.Equal(t, `buffstreams: messages were not delivered: 6 at close, 4 of topic "orders" for a:1, 2 of topic "orders"`, e.Error())
	e.add("bills", "a:1", 1)
	require.Contains(t, e.Error(), `, 1 of topic "bills" for a:1`)
	require.NotContains(t, e.Error(), "more topics")
	e.add("bills", "b:1", 1)
	e.add("bills", "", 1)
	require.Contains(t, e.Error(), `: 9 at close, 4 of topic "orders" for a:1, 2 of topic "orders", 1 of topic "bills" for a:1, and 2 more topics`)
	require.Equal(t, e, e.orNil())
}

// TestPublishError_SaysWhere, if the messages came to an address.
func TestPublishError_SaysWhere(t *testing.T) {
	e := &PublishError{Topic: "orders", Peer: "a:1", NotSent: keyed("a"), Unknown: keyed("a", "b"), Err: ErrTimeout}
	require.Equal(t, `buffstreams: publishing to "orders" at "a:1": buffstreams: timed out waiting for the peer (1 not sent, 2 unconfirmed)`,
		e.Error())
	e.Peer = ""
	require.NotContains(t, e.Error(), " at ")
}
