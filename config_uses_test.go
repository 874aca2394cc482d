package buffstreams

import (
	"context"
	"math"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// eachItsOwn gives each number and duration of a configuration a value of its own, which grows from one to the next.
func eachItsOwn(cfg any) {
	for i, v := range fieldsOf(cfg) {
		switch {
		case v.Type() == reflect.TypeFor[time.Duration]():
			v.SetInt(int64(i+1) * int64(time.Second))
		case v.CanInt():
			v.SetInt(int64(i+1) * 1000)
		}
	}
}

func fieldsOf(cfg any) (all []reflect.Value) {
	v := reflect.ValueOf(cfg).Elem()
	for i := range v.NumField() {
		all = append(all, v.Field(i))
	}
	return all
}

// TestConfig_GoesWhereItIsUsed: what a sender, a receiver and a listener for plain peers have of AckedConfig is what has the same name there.
func TestConfig_GoesWhereItIsUsed(t *testing.T) {
	acked := AckedConfig{}
	eachItsOwn(&acked)
	m := newTestManager(t, ManagerConfig{Acked: acked})
	sends, err := m.senderConfig(anyPort)
	require.NoError(t, err)
	receives, err := m.receiverConfig(anyPort)
	require.NoError(t, err)
	plain, err := m.plainConfig(anyPort, 9)
	require.NoError(t, err)
	require.Equal(t, 9, plain.MaxMessageSize)
	plain.MaxMessageSize = acked.MaxMessageSize // it is SubscriberConfig's
	require.Same(t, m.kept, sends.Budget)
	require.Same(t, m.held, receives.Budget)
	require.Equal(t, forgetIdleAfter, receives.ForgetIdleAfter)
	given := reflect.ValueOf(acked)
	for uses, least := range map[any]int{&sends: 9, &receives: 9, &plain: 4} {
		checked := 0
		for i, v := range fieldsOf(uses) {
			name := reflect.TypeOf(uses).Elem().Field(i).Name
			if !v.CanInt() || !given.FieldByName(name).IsValid() {
				continue
			}
			require.Equal(t, given.FieldByName(name).Int(), v.Int(), "%T has another %s", uses, name)
			checked++
		}
		require.GreaterOrEqual(t, checked, least)
	}
}

// TestConfig_ValidateKnowsTheBounds: a value at a bound is valid, the one beyond it is not.
func TestConfig_ValidateKnowsTheBounds(t *testing.T) {
	require.NoError(t, AckedConfig{MaxMessageSize: 1 << 30, WindowBytes: 1<<30 + 64, MemoryLimit: 1<<30 + 64}.Validate())
	require.ErrorContains(t, AckedConfig{MaxMessageSize: 1<<30 + 1, WindowBytes: 2 << 30, MemoryLimit: 2 << 30}.Validate(), "MaxMessageSize")
	require.ErrorContains(t, AckedConfig{WindowMessages: -1}.Validate(), "WindowMessages")
	require.NoError(t, AckedConfig{MemoryLimit: 16 << 20}.Validate(), "a window")
	require.ErrorContains(t, AckedConfig{MemoryLimit: 16<<20 - 1}.Validate(), "MemoryLimit")
	require.ErrorContains(t, AckedConfig{PingAfter: 1, DeadAfter: 1}.Validate(), "DeadAfter")
	require.NoError(t, AckedConfig{PingAfter: 1, DeadAfter: 2, MaxConnectionsPerHost: Unlimited}.Validate())
	require.ErrorContains(t, AckedConfig{MaxConnectionsPerHost: Unlimited - 1}.Validate(), "MaxConnectionsPerHost")
	require.ErrorContains(t, ManagerConfig{CloseTimeout: -1}.Validate(), "CloseTimeout")
	for _, cfg := range []AckedConfig{{HandshakeTimeout: -1}, {WriteTimeout: -1}, {PingAfter: -1}, {ForgetAfter: -1}} {
		require.ErrorContains(t, cfg.Validate(), "must not be negative")
	}
	for _, cfg := range []AckedConfig{{MaxConnections: -1}, {MaxTopics: -1}, {MaxPublishers: -1}, {MaxStreams: -1}} {
		require.ErrorContains(t, cfg.Validate(), "must not be negative")
	}
	one := session.EncodedSize(1000)
	require.NoError(t, AckedConfig{MaxMessageSize: 1000, WindowBytes: one}.Validate(), "a window of one message")
	require.ErrorContains(t, AckedConfig{MaxMessageSize: 1000, WindowBytes: one - 1}.Validate(), "WindowBytes")
	for field, reconnect := range map[string]ReconnectConfig{
		"InitialInterval": {InitialInterval: -1}, "MaxInterval": {InitialInterval: 2, MaxInterval: 1}, "Multiplier": {Multiplier: 0.9},
	} {
		require.ErrorContains(t, AckedConfig{Reconnect: &reconnect}.Validate(), "ReconnectConfig."+field)
	}
	require.NoError(t, AckedConfig{Reconnect: &ReconnectConfig{InitialInterval: 1, MaxInterval: 1, Multiplier: 1}}.Validate())
	require.ErrorContains(t, AckedConfig{Reconnect: &ReconnectConfig{Multiplier: math.NaN()}}.Validate(), "Multiplier")
}

// TestManager_KnowsAPeerByEachSpelling: an address that was published to is found however its name is written.
func TestManager_KnowsAPeerByEachSpelling(t *testing.T) {
	m := newTestManager(t, ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }})
	pub, err := NewPublisher(PublisherConfig{Manager: m, Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	defer func() { _ = pub.Close() }() // it leaves the message
	require.NoError(t, pub.Publish("EXAMPLE.org:1/a", textMessage("one")))
	for _, address := range []string{"EXAMPLE.org:1", "example.org:01"} {
		require.Equal(t, PeerStatus{Pending: 1}, m.PeerStatus(address), address)
	}
	require.Zero(t, m.PeerStatus("example.org:2"))
	require.Zero(t, m.PeerStatus("no address"))
}

// TestManager_BoundsWhatARefusalKeeps: a peer that refuses a lot while OnFailure takes its time fills no memory.
func TestManager_BoundsWhatARefusalKeeps(t *testing.T) {
	goOn := make(chan struct{})
	m := newTestManager(t, ManagerConfig{OnFailure: func(string, []byte, error) { <-goOn }})
	cfg, err := m.senderConfig(anyPort)
	require.NoError(t, err)
	large := make([]byte, maxQueuedFailures/2)
	for range 4 {
		cfg.Refused(session.Refused{Topic: "a", Message: large, Err: &session.PeerError{}})
	}
	m.failures.mu.Lock()
	kept := m.failures.bytes
	m.failures.mu.Unlock()
	close(goOn)
	require.LessOrEqual(t, kept, maxQueuedFailures)
	require.ErrorContains(t, m.Close(), "did not get all that failed")
}

// TestManager_SaysWhatFailedOnThePlainWire, but not what it had no time for: its writer says that.
func TestManager_SaysWhatFailedOnThePlainWire(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	require.ErrorIs(t, m.flushPlain(t.Context(), "none"), pool.ErrNotOpened)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, m.flushPlain(ctx, "none"))
}

// TestTopic_Bounds: a name, a path and a port at their bounds are good, the next ones are not.
func TestTopic_Bounds(t *testing.T) {
	path := func(n int) string { return "unix:///" + strings.Repeat("p", n-1) }
	require.NoError(t, checkName(strings.Repeat("n", maxName)))
	require.ErrorIs(t, checkName(strings.Repeat("n", maxName+1)), ErrBadTopic)
	require.ErrorIs(t, checkName("\xff"), ErrBadTopic)
	for topic, good := range map[string]bool{
		path(maxSocketPath): true, path(maxSocketPath + 1): false, "unix://a/b": false, "127.0.0.1:65535": true, "127.0.0.1:65536": false,
		"127.0.0.1:1/name": false, "unix:///a#name": false, "tls://a:1": true, "tls://a:1/name": false, "a": false, ":1": true,
	} {
		target, err := parseAddress(topic)
		if !good {
			require.ErrorIs(t, err, ErrBadTopic, topic)
			continue
		}
		require.NoError(t, err, topic)
		require.Equal(t, topic, formatAddress(target))
	}
	for topic, address := range map[string]bool{
		":1/a": true, "127.0.0.1:1/a": true, "[::1]:1": true, "tcp://host:1": true, "tls://host:1": true, "unix:///a": true,
		"host:1": false, "tenant:42": false, "events://orders": false, "orders": false,
	} {
		_, ok, err := parseTopic(topic, true)
		require.NoError(t, err, topic)
		require.Equal(t, address, ok, topic)
	}
}
