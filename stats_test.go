package buffstreams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// statsPair is a publisher and a subscriber on Managers of their own, and their topic.
type statsPair struct {
	pub   *Publisher
	sub   *Subscriber
	topic string
}

func newStatsPair(t *testing.T, pubCfg PublisherConfig, subCfg SubscriberConfig) *statsPair {
	t.Helper()
	sub, err := NewSubscriber(subCfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	addr, err := sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	pubCfg.CloseTimeout = 100 * time.Millisecond
	pub, err := NewPublisher(pubCfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return &statsPair{pub: pub, sub: sub, topic: addr.String() + "/orders"}
}

func textMessage(text string) *message.Message {
	return message.NewMessage(watermill.NewUUID(), []byte(text))
}

// fresh forgets the results that Stats keeps for a second.
func (p *statsPair) fresh() (PublisherStats, SubscriberStats) {
	p.pub.stats.at, p.sub.stats.at = time.Time{}, time.Time{}
	return p.pub.Stats(), p.sub.Stats()
}

// One group is stuck with a message of one key, and the numbers at both ends say so.
func TestStats_SayWhatIsStuck(t *testing.T) {
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{
		ConsumerGroup: "billing", MaxInFlight: 4, Key: func(m *message.Message) string { return m.Metadata.Get("customer") },
	})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	before := time.Now()
	for _, customer := range []string{"c1", "c1", "c1", "c2"} {
		m := textMessage("order")
		m.Metadata.Set("customer", customer)
		require.NoError(t, p.pub.Publish(p.topic, m))
	}
	stuck := <-out
	(<-out).Ack() // of c2
	var pub PublisherStats
	var sub SubscriberStats
	require.Eventually(t, func() bool {
		pub, sub = p.fresh()
		return len(pub.Addresses) == 1 && pub.Addresses[0].Pending == 3 && sub.Listeners[0].Topics[0].Groups[0].Lag == 3
	}, 30*time.Second, 10*time.Millisecond)

	address := pub.Addresses[0]
	require.Equal(t, "ready", address.State)
	require.WithinRange(t, address.Since, before, time.Now())
	require.WithinRange(t, address.OldestUnsettled, before.Add(-time.Millisecond), time.Now())
	require.EqualValues(t, 4, address.Sent)
	require.EqualValues(t, 1, address.Settled)
	require.EqualValues(t, 1, address.Connects)
	require.Zero(t, address.Unreceived)
	require.Equal(t, "orders", address.Streams[0].Topic)
	require.Equal(t, 3, pub.Topics[0].Pending)

	l := sub.Listeners[0]
	require.Equal(t, "open", l.State)
	require.Len(t, l.Peers, 1)
	require.Equal(t, 1, l.Peers[0].Streams)
	require.EqualValues(t, 4, l.Received)
	group := l.Topics[0].Groups[0]
	require.Equal(t, "billing", group.Group)
	require.Equal(t, 1, group.Members)
	require.EqualValues(t, 1, group.Settled)
	require.Equal(t, 1, group.InFlight)
	require.WithinRange(t, group.OldestUnsettled, before, time.Now())
	require.Equal(t, []KeyStats{{Key: "c1", Waiting: 2, Oldest: group.StuckKeys[0].Oldest}}, group.StuckKeys)
	require.WithinRange(t, sub.Subscriptions[0].OldestInFlight, before, time.Now())
	require.Equal(t, group.OldestUnsettled, sub.Subscriptions[0].OldestInFlight)

	stuck.Ack()
	(<-out).Ack()
	(<-out).Ack()
	require.Eventually(t, func() bool {
		pub, sub = p.fresh()
		group = sub.Listeners[0].Topics[0].Groups[0]
		return pub.Addresses[0].Pending == 0 && group.Lag == 0
	}, 30*time.Second, 10*time.Millisecond)
	require.True(t, pub.Addresses[0].OldestUnsettled.IsZero())
	require.True(t, group.OldestUnsettled.IsZero())
	require.True(t, sub.Subscriptions[0].OldestInFlight.IsZero())
}

// Who looks changes nothing: no topic, group, listener or connection is made.
func TestStats_MakeNothing(t *testing.T) {
	sub, err := NewSubscriber(SubscriberConfig{ManagerConfig: ManagerConfig{Listen: func(string, string) (net.Listener, error) {
		return nil, errors.New("something listens")
	}}}, nil)
	require.NoError(t, err)
	pub, err := NewPublisher(PublisherConfig{ManagerConfig: ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("something dials")
	}}}, nil)
	require.NoError(t, err)
	require.Empty(t, pub.Stats().Addresses)
	require.Empty(t, pub.Stats().Topics)
	require.Empty(t, sub.Stats().Listeners)
	require.NoError(t, pub.Ready(context.Background()))
	require.NoError(t, pub.Close())
	require.NoError(t, sub.Close())
}

// A second's worth of callers gets what one of them has collected.
func TestStats_AreKeptForASecond(t *testing.T) {
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{})
	first := p.pub.Stats()
	for again := p.pub.Stats(); !again.At.Equal(first.At); again = p.pub.Stats() { // a busy machine may take a second for two lines
		require.GreaterOrEqual(t, again.At.Sub(first.At), time.Second)
		first = again
	}
	require.Eventually(t, func() bool { return p.pub.Stats().At.After(first.At) }, 30*time.Second, 50*time.Millisecond)
	require.GreaterOrEqual(t, p.pub.Stats().At.Sub(first.At), time.Second)
}

// A peer that cannot be reached shows with its reason, and the messages for it with their age.
func TestStats_SayWhyAPeerIsAway(t *testing.T) {
	pub, err := NewPublisher(PublisherConfig{Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond, ManagerConfig: ManagerConfig{
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route to host") },
	}}, nil)
	require.NoError(t, err)
	defer func() { _ = pub.Close() }()
	require.NoError(t, pub.Publish("127.0.0.1:1/orders", textMessage("order")))
	var a AddressStats
	require.Eventually(t, func() bool {
		pub.stats.at = time.Time{}
		a = pub.Stats().Addresses[0]
		return a.State == "failed"
	}, 30*time.Second, 10*time.Millisecond)
	require.Contains(t, a.LastError, "no route to host")
	require.NotZero(t, a.LastErrorAt)
	require.Equal(t, 1, a.Pending)
	require.Equal(t, 1, a.Unreceived)
	require.False(t, a.OldestUnsettled.IsZero())

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = pub.Ready(ctx)
	require.ErrorIs(t, err, ErrNotReady)
	require.ErrorContains(t, err, "127.0.0.1:1 is failed: ")
	require.ErrorContains(t, err, "no route to host")
}

// A Manager is ready when nothing holds its topics back any more.
func TestStats_ReadyNamesWhatIsMissing(t *testing.T) {
	ready := make(chan struct{})
	m := newTestManager(t, ManagerConfig{Ready: ready, Acked: AckedConfig{Groups: map[string][]string{"orders": {"billing"}}}})
	sub, err := NewSubscriber(SubscriberConfig{Manager: m, ConsumerGroup: "billing"}, nil)
	require.NoError(t, err)
	defer func() { _ = sub.Close() }()
	_, err = sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	look, cancel := context.WithCancel(context.Background())
	cancel()
	notReady := (*NotReadyError)(nil)
	require.ErrorAs(t, m.Ready(look), &notReady)
	require.Equal(t, []string{
		"a Ready channel is not closed yet", `topic "orders" at 127.0.0.1:0 waits for declared groups: ["billing"]`,
	}, notReady.Reasons)
	require.Equal(t, notReady.Reasons, m.Stats().NotReady)

	done := make(chan error)
	go func() { done <- sub.Ready(context.Background()) }() // ends with what follows
	_, err = sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	close(ready)
	require.NoError(t, <-done)
	require.NoError(t, m.Ready(look))
}

// The names of the JSON form are part of the contract of monitor and of what others build on it.
func TestStats_JSON(t *testing.T) {
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{ConsumerGroup: "g"})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	<-out
	require.Eventually(t, func() bool { // the pump notes what it has emitted a moment later
		return !p.sub.manager.collectStats(time.Now()).Listeners[0].Topics[0].Groups[0].OldestUnsettled.IsZero()
	}, 30*time.Second, time.Millisecond)
	text, err := json.Marshal(p.sub.manager.Stats())
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(text, &got))
	require.EqualValues(t, StatsVersion, got["version"])
	topic := got["listeners"].([]any)[0].(map[string]any)["topics"].([]any)[0].(map[string]any)
	require.Equal(t, "orders", topic["topic"])
	group := topic["groups"].([]any)[0].(map[string]any)
	require.EqualValues(t, 1, group["lag"])
	require.EqualValues(t, 1, group["in_flight"])
	require.NotEmpty(t, group["oldest_unsettled"])
}

// Many topics at both ends cost neither a goroutine nor more than a moment. TOPICS says how many; docs/operating.md has what 10,000 take.
func TestStats_ManyTopics(t *testing.T) {
	topics := int(testkit.EnvNumber(t, "TOPICS", 1000))
	m := newTestManager(t, ManagerConfig{})
	sub, err := NewSubscriber(SubscriberConfig{Manager: m, ConsumerGroup: "g"}, nil)
	require.NoError(t, err)
	pub, err := NewPublisher(PublisherConfig{Manager: m, Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	addr, err := sub.Addr("127.0.0.1:0/0")
	require.NoError(t, err)
	for i := range topics {
		require.NoError(t, sub.SubscribeInitialize(fmt.Sprintf("127.0.0.1:0/%d", i)))
		require.NoError(t, pub.Publish(fmt.Sprintf("%s/%d", addr, i), textMessage("order")))
	}
	require.NoError(t, pub.Flush(context.Background()))
	before := runtime.NumGoroutine()
	began := time.Now()
	s := m.Stats()
	took := time.Since(began)
	text, err := json.Marshal(s)
	require.NoError(t, err)
	t.Logf("%d topics: %v, %d bytes of JSON", topics, took, len(text))
	require.Less(t, took, 15*time.Second) // mostly 10 ms; it finds what grows with the square
	require.LessOrEqual(t, runtime.NumGoroutine(), before+10)
	require.Len(t, s.Listeners[0].Topics, topics)
	require.Len(t, s.Addresses[0].Streams, topics)
	require.Equal(t, topics, s.Addresses[0].Pending)
	_ = pub.Close()
	_ = sub.Close()
}
