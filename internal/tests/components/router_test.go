package components

import (
	"context"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/plugin"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// Handlers come and go while the router runs. What is published for one that was stopped waits for the next of its group.
func TestRouter_HandlersAtRunTime(t *testing.T) {
	p := newPair(t)
	pub := p.publisher(t)
	r := newRouter(t)
	var first, second, other tally
	into := func(a *tally) message.NoPublishHandlerFunc {
		return func(m *message.Message) error { a.add(string(m.Payload)); return nil }
	}
	r.AddConsumerHandler("other", "other", p.subscriber(t, "g", nil), into(&other))
	run(t, r)

	h := r.AddConsumerHandler("first", "orders", p.subscriber(t, "g", nil), into(&first))
	require.NoError(t, r.RunHandlers(context.Background()))
	require.NoError(t, pub.Publish("orders", newMessages(10)...))
	require.Equal(t, numbers(10), first.await(t, 10))

	h.Stop()
	receive(t, h.Stopped())
	require.NoError(t, pub.Publish("orders", newMessage("kept")))
	require.NoError(t, pub.Publish("other", newMessage("still here")))
	other.await(t, 1)

	r.AddConsumerHandler("second", "orders", p.subscriber(t, "g", nil), into(&second))
	require.NoError(t, r.RunHandlers(context.Background()))
	require.Equal(t, []string{"kept"}, second.await(t, 1))
	require.Len(t, first.all(), 10)
}

// A router that closes lets the handlers that run end, and acks what they did: nothing comes twice.
func TestRouter_CloseInFlight(t *testing.T) {
	const inFlight = 8
	p := newPair(t)
	pub := p.publisher(t)
	var done tally
	entered, let := make(chan struct{}, inFlight), make(chan struct{})
	handler := func(m *message.Message) error {
		entered <- struct{}{}
		<-let
		done.add(string(m.Payload))
		return nil
	}
	wide := func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = inFlight }
	r := newRouter(t)
	r.AddConsumerHandler("h", "orders", p.subscriber(t, "g", wide), handler)
	ended := run(t, r)
	require.NoError(t, pub.Publish("orders", newMessages(inFlight)...))
	for range inFlight {
		receive(t, entered)
	}
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }() // Ends when the handlers do.
	select {
	case <-closed:
		require.Fail(t, "Close did not wait for the handlers")
	case <-time.After(50 * time.Millisecond): // real time: that something does not happen
	}
	close(let)
	require.NoError(t, receive(t, closed))
	require.NoError(t, receive(t, ended))
	require.ElementsMatch(t, numbers(inFlight), done.all())

	again := newRouter(t) // with the same group: it gets what was not acked, and then the next message
	var later tally
	again.AddConsumerHandler("h", "orders", p.subscriber(t, "g", nil), func(m *message.Message) error {
		later.add(string(m.Payload))
		return nil
	})
	run(t, again)
	require.NoError(t, pub.Publish("orders", newMessage("next")))
	require.Equal(t, []string{"next"}, later.await(t, 1))
}

// What a publisher that is gone has confirmed is handled before a router ends, however it is told to.
func TestRouter_CloseDrainsWhatOnlyItHas(t *testing.T) {
	const count = 500
	ways := map[string]func(r *message.Router, cancel func()) error{
		"Router.Close":               func(r *message.Router, _ func()) error { return r.Close() },
		"Run's context is cancelled": func(_ *message.Router, cancel func()) error { cancel(); return nil },
	}
	for name, end := range ways {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			sub := p.subscriber(t, "g", func(c *buffstreams.SubscriberConfig) { c.CloseTimeout = patience })
			r := newRouter(t)
			var handled atomic.Int64
			begin := make(chan struct{})
			r.AddConsumerHandler("h", "orders", sub, func(*message.Message) error {
				<-begin
				handled.Add(1)
				return nil
			})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- r.Run(ctx) }() // Ends with end.
			receive(t, r.Running())
			leaving, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
			require.NoError(t, err)
			require.NoError(t, leaving.Publish(p.topic("orders"), newMessages(count)...))
			require.NoError(t, leaving.Close())
			close(begin)
			require.NoError(t, end(r, cancel))
			require.NoError(t, receive(t, ended))
			require.NoError(t, sub.Close())
			require.EqualValues(t, count, handled.Load())
		})
	}
}

// A handler may publish to the topic that it handles, through a publisher on the same Manager.
func TestRouter_HandlerPublishesToItsOwnTopic(t *testing.T) {
	const count = 100
	p := newPair(t)
	own, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: p.listens}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, own.Close()) })
	r := newRouter(t)
	var got tally
	r.AddConsumerHandler("h", "orders", p.subscriber(t, "g", nil), func(m *message.Message) error {
		got.add(string(m.Payload))
		if m.Metadata.Get("again") != "" {
			return nil
		}
		next := newMessage(string(m.Payload))
		next.Metadata.Set("again", "yes")
		return own.Publish(p.topic("orders"), next)
	})
	run(t, r)
	require.NoError(t, p.publisher(t).Publish("orders", newMessages(count)...))
	require.ElementsMatch(t, append(numbers(count), numbers(count)...), got.await(t, 2*count))
}

// A handler's results go to another service, and its input is acked only when that has them.
func TestRouter_HandlerWithAPublisher(t *testing.T) {
	p, results := newPair(t), newPair(t)
	r := newRouter(t)
	out, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: p.listens}, nil)
	require.NoError(t, err)
	r.AddHandler("h", "orders", p.subscriber(t, "g", nil), results.topic("bills"), out,
		func(m *message.Message) ([]*message.Message, error) {
			return []*message.Message{newMessage("bill " + string(m.Payload))}, nil
		})
	run(t, r)
	bills, err := results.subscriber(t, "b", nil).Subscribe(context.Background(), "bills")
	require.NoError(t, err)
	require.NoError(t, p.publisher(t).Publish("orders", newMessages(2)...))
	for _, want := range []string{"bill 0", "bill 1"} {
		m := receive(t, bills)
		require.Equal(t, want, string(m.Payload))
		m.Ack()
	}
}

const signalsCommand = "run-until-signal"

// runUntilSignal is the child of the test below: a service that ends at SIGTERM.
func runUntilSignal(address string) int {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: "127.0.0.1:0", ConsumerGroup: "g"}, nil)
	if err != nil {
		return 2
	}
	answers, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	if err != nil {
		return 2
	}
	r, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return 2
	}
	r.AddPlugin(plugin.SignalsHandler)
	r.AddConsumerHandler("slow", "orders", sub, func(m *message.Message) error {
		if err := answers.Publish(address+"/said", newMessage("begun")); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond) // real work, in which the signal comes
		return answers.Publish(address+"/said", newMessage("done"))
	})
	go func() { // Ends with the process.
		<-r.Running()
		bound, err := sub.Addr("orders")
		if err != nil {
			os.Exit(2)
		}
		_ = answers.Publish(address+"/said", newMessage(bound.String()))
	}()
	if err := r.Run(context.Background()); err != nil {
		return 3
	}
	if answers.Close() != nil || sub.Close() != nil {
		return 4
	}
	return 0
}

// SIGTERM ends a process with SignalsHandler: the handler that runs finishes first, and the exit is clean.
func TestSignalsHandler_FinishesWhatRuns(t *testing.T) {
	testkit.CheckLeaks(t)
	p := newPair(t)
	said, err := p.subscriber(t, "g", nil).Subscribe(context.Background(), "said")
	require.NoError(t, err)
	next := func() string {
		m := receive(t, said)
		m.Ack()
		return string(m.Payload)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], signalsCommand, p.address)
	child.Stderr = os.Stderr
	require.NoError(t, child.Start())
	address := next()
	pub := p.publisher(t)
	require.NoError(t, pub.Publish(address+"/orders", newMessage("order")))
	require.Equal(t, "begun", next())
	require.NoError(t, child.Process.Signal(syscall.SIGTERM))
	require.Equal(t, "done", next())
	require.NoError(t, child.Wait())
}
