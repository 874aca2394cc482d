package buffstreams

import (
	"context"
	"math"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
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
