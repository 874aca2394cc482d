package buffstreams

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
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
	pub, err := NewPublisher(PublisherConfig{PublishTimeout: 10 * time.Second}, log)
	require.NoError(t, err)
	published := make(chan error, 1)
	began := time.Now()
	go func() { published <- pub.Publish(addr.String()+"/orders", textMessage("order")) }() // ends with the subscription below
	var line testkit.LogLine
	select {
	case line = <-log.Lines:
	case <-time.After(8 * time.Second):
		t.Fatal("nothing is logged")
	}
	require.Equal(t, "Publish has waited for more than a second", line.Msg)
	require.GreaterOrEqual(t, time.Since(began), time.Second)
	require.Less(t, time.Since(began), 3*time.Second)
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

// A Publish that waits for a peer that is away says that.
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
