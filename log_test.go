package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// linesOf returns the lines of a log that were written so far.
func linesOf(log testkit.Log) (all []testkit.LogLine) {
	for {
		select {
		case line := <-log.Lines:
			all = append(all, line)
		default:
			return all
		}
	}
}

func count(lines []testkit.LogLine, level, msg string) (n int) {
	for _, l := range lines {
		if l.Level == level && strings.Contains(l.Msg, msg) {
			n++
		}
	}
	return n
}

// quickly tries again after a few milliseconds.
var quickly = &ReconnectConfig{BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(5 * time.Millisecond) }}

// A peer that comes and goes is one line at each side, however often it does, and its return is one.
func TestLog_APeerThatFlapsIsLoggedOnce(t *testing.T) {
	pubLog, subLog := testkit.NewLog(), testkit.NewLog()
	flapping := true
	dialed := make(chan net.Conn, 1000)
	sub, err := NewSubscriber(SubscriberConfig{CloseTimeout: time.Second}, subLog)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close()) }()
	addr, err := sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	pub, err := NewPublisher(PublisherConfig{Confirm: ConfirmEnqueued, ManagerConfig: ManagerConfig{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil && flapping {
				_, _ = conn.Write([]byte("no frame at all")) // the listener refuses it
				if flapping = len(dialed) < 30; !flapping {
					return conn, conn.Close()
				}
			}
			dialed <- conn
			return conn, err
		},
		Acked: AckedConfig{Reconnect: quickly},
	}}, pubLog)
	require.NoError(t, err)
	out, err := sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, pub.Publish(addr.String()+"/orders", textMessage("order")))
	(<-out).Ack()
	require.NoError(t, pub.Drain(context.Background()))
	require.GreaterOrEqual(t, len(dialed), 30)
	lines := linesOf(pubLog)
	require.Equal(t, 1, count(lines, "info", "Connection lost"), "%v", lines)
	require.Equal(t, 1, count(lines, "info", "Connected again"), "%v", lines)
	require.NoError(t, pub.Close())
	require.LessOrEqual(t, count(linesOf(subLog), "info", "Connection ended"), 1)
}

// A Publish that waits says why while it does: the peer's own words, if there are any.
func TestLog_APublishThatWaitsSaysWhy(t *testing.T) {
	log := testkit.NewLog()
	sub, err := NewSubscriber(SubscriberConfig{}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close()) }()
	addr, err := sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	pub, err := NewPublisher(PublisherConfig{PublishTimeout: time.Minute}, log)
	require.NoError(t, err)
	published := make(chan error, 1)
	began := time.Now()
	go func() { published <- pub.Publish(addr.String()+"/orders", textMessage("order")) }() // ends with the subscription below
	var line testkit.LogLine
	select {
	case line = <-log.Lines:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is logged")
	}
	require.Equal(t, "Publish has waited for more than a second", line.Msg)
	require.GreaterOrEqual(t, time.Since(began), time.Second)
	require.Contains(t, line.Fields["reason"], "nobody has subscribed to it")
	require.Equal(t, `"orders"`, line.Fields["topic"])
	require.Equal(t, 1, line.Fields["calls"])
	out, err := sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	(<-out).Ack()
	require.NoError(t, <-published)
	require.NoError(t, pub.Close())
	require.Empty(t, linesOf(log), "it is said once")
}

// A Publish that waits for a peer that is away says that. It is in no bubble: what such a call has waited with goes to the next test.
func TestLog_APublishThatWaitsForAPeer(t *testing.T) {
	log := testkit.NewLog()
	pub, err := NewPublisher(PublisherConfig{PublishTimeout: 3 * time.Second, CloseTimeout: time.Millisecond, ManagerConfig: ManagerConfig{
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
	}}, log)
	require.NoError(t, err)
	require.ErrorIs(t, pub.Publish("127.0.0.1:1/orders", textMessage("order")), ErrTimeout)
	lines := linesOf(log)
	require.Equal(t, 1, count(lines, "info", "Publish has waited"))
	require.Contains(t, lines[0].Fields["reason"], "connecting to 127.0.0.1:1")
	_ = pub.Close()
}

// What needs a person is an error, once.
func TestLog_ARefusalIsAnErrorOnce(t *testing.T) {
	log := testkit.NewLog()
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{ManagerConfig: ManagerConfig{Acked: AckedConfig{
		Authenticate: func(context.Context, Peer) (string, error) { return "", errors.New("unknown") },
	}}})
	pub, err := NewPublisher(PublisherConfig{
		Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond, ManagerConfig: ManagerConfig{Acked: AckedConfig{Reconnect: quickly}},
	}, log)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(p.topic, textMessage("order")))
	require.Eventually(t, func() bool {
		pub.stats.at = time.Time{}
		return pub.Stats().Addresses[0].Failures > 10
	}, 20*time.Second, 10*time.Millisecond)
	lines := linesOf(log)
	require.Equal(t, 1, count(lines, "error", "refused"), "%v", lines)
	require.Zero(t, count(lines, "info", "Connection lost"))
	_ = pub.Close()
}

// traceLog is a testkit.Log that keeps Trace lines too.
type traceLog struct{ testkit.Log }

func (l traceLog) Trace(msg string, fields watermill.LogFields) {
	l.Lines <- testkit.LogLine{Level: "trace", Msg: msg, Fields: fields}
}

// outcomes returns what the Trace lines of a message say, in order.
func outcomes(lines []testkit.LogLine, uuid string) (all []string) {
	for _, l := range lines {
		if l.Level == "trace" && l.Fields["message_uuid"] == uuid {
			all = append(all, fmt.Sprintf("%s %v %v", l.Msg, l.Fields["delivery"], l.Fields["outcome"]))
		}
	}
	return all
}

// Each message can be followed through the log, but only where that was asked for.
func TestLog_TracesEachMessageOnRequest(t *testing.T) {
	for _, traces := range []bool{false, true} {
		pubLog, subLog := traceLog{testkit.NewLog()}, traceLog{testkit.NewLog()}
		sub, err := NewSubscriber(SubscriberConfig{TraceMessages: traces, NackResendSleep: NoSleep, AckWaitTimeout: 2 * time.Second}, subLog)
		require.NoError(t, err)
		addr, err := sub.Addr("127.0.0.1:0/orders")
		require.NoError(t, err)
		out, err := sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
		require.NoError(t, err)
		pub, err := NewPublisher(PublisherConfig{TraceMessages: traces, Confirm: ConfirmReceived, MaxMessageSize: 1000}, pubLog)
		require.NoError(t, err)
		topic := addr.String() + "/orders"
		hard, easy, large := textMessage("hard"), textMessage("easy"), textMessage(strings.Repeat("large", 1000))
		require.NoError(t, pub.Publish(topic, hard, easy))
		require.Error(t, pub.Publish(topic, large))
		(<-out).Nack()
		<-out // until it is late
		(<-out).Ack()
		(<-out).Ack()
		require.NoError(t, pub.Drain(context.Background()))
		require.NoError(t, pub.Close())
		require.NoError(t, sub.Close())
		published, received := linesOf(pubLog.Log), linesOf(subLog.Log)
		if !traces {
			require.Empty(t, slices.Concat(outcomes(published, easy.UUID), outcomes(received, easy.UUID), outcomes(received, hard.UUID)))
			continue
		}
		require.Equal(t, []string{"Message published <nil> confirmed"}, outcomes(published, easy.UUID))
		require.Equal(t, []string{"Message published <nil> not sent"}, outcomes(published, large.UUID))
		require.Equal(t, []string{"Message delivered 1 <nil>", "Delivery ended 1 acked"}, outcomes(received, easy.UUID))
		require.Equal(t, []string{
			"Message delivered 1 <nil>", "Delivery ended 1 nacked", "Message delivered 2 <nil>", "Delivery ended 2 late",
			"Message delivered 3 <nil>", "Delivery ended 3 acked",
		}, outcomes(received, hard.UUID))
	}
}

// A Publish that waits for a Resolver, or for an address of a route, says that too.
func TestLog_APublishThatWaitsForItsRoute(t *testing.T) {
	block := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	for _, c := range []struct {
		name     string
		resolver route.Resolver
		wire     Wire
		reason   string
	}{
		{"a Resolver that does not answer", route.Func(func(ctx context.Context, _ string) (route.Route, error) {
			<-ctx.Done()
			return route.Route{}, ctx.Err()
		}), WireAcked, "the Resolver has not answered"},
		{"a DNS that fails", route.Func(func(context.Context, string) (route.Route, error) {
			return route.Route{}, &net.DNSError{Err: "server misbehaving", Name: "orders.example", IsTemporary: true}
		}), WireAcked, "server misbehaving"},
		{"a route without a connection", route.Func(func(context.Context, string) (route.Route, error) {
			return route.Route{Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Policy: route.RoundRobin}, nil
		}), WireAcked, "127.0.0.1:1 is connecting"},
		{"a plain peer", route.Static{"orders": {Addresses: []string{"127.0.0.1:1"}}}, WireBuffStreams, "there is no connection yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := testkit.NewLog()
				config := PublisherConfig{
					Resolver: c.resolver, Wire: c.wire, PublishTimeout: 1500 * time.Millisecond, CloseTimeout: time.Millisecond,
					ManagerConfig: ManagerConfig{Dial: block},
				}
				if c.wire == WireBuffStreams {
					config.Confirm = ConfirmEnqueued
				}
				pub, err := NewPublisher(config, log)
				require.NoError(t, err)
				require.ErrorIs(t, pub.Publish("orders", textMessage("order")), ErrTimeout)
				lines := linesOf(log)
				require.Equal(t, 1, count(lines, "info", "Publish has waited for more than a second"), "%v", lines)
				waits := lines[slices.IndexFunc(lines, func(l testkit.LogLine) bool { return strings.Contains(l.Msg, "has waited") })]
				require.Contains(t, waits.Fields["reason"], c.reason)
				require.Equal(t, `"orders"`, waits.Fields["topic"])
				_ = pub.Close()
			})
		})
	}
}

// Of a call that has failed in part, each message has one line with what became of it.
func TestLog_TracesWhatBecameOfEachMessage(t *testing.T) {
	log := traceLog{testkit.NewLog()}
	p := &Publisher{logger: log}
	var messages []*message.Message
	for range 4 {
		messages = append(messages, textMessage("order"))
	}
	p.trace("orders", messages, &PublishError{Unknown: messages[1:2], NotSent: messages[2:], Err: ErrTimeout})
	p.trace("orders", messages[:1], ErrPublisherClosed)
	p.trace("orders", messages[:1], nil)
	lines := linesOf(log.Log)
	require.Len(t, lines, len(messages)+2)
	for i, outcome := range []string{"confirmed", "unknown", "not sent", "not sent", "not sent", "confirmed"} {
		if i < len(messages) {
			require.Equal(t, messages[i].UUID, lines[i].Fields["message_uuid"])
		}
		require.Equal(t, outcome, lines[i].Fields["outcome"])
		require.Equal(t, outcome != "confirmed", lines[i].Fields["reason"] != nil, "%v", lines[i])
	}
	require.Equal(t, ErrPublisherClosed.Error(), lines[4].Fields["reason"])
}
