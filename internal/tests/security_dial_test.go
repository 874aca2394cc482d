package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

func TestDialAllow_IsCheckedAgainstWhatIsConnectedTo(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	host, port, err := net.SplitHostPort(h.address)
	require.NoError(t, err)
	allowing := func(prefix string, spoken buffstreams.Wire) *buffstreams.Publisher {
		return sender(t, buffstreams.AckedConfig{}, func(c *buffstreams.PublisherConfig) {
			c.ManagerConfig.DialAllow = &pool.DialAllow{Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
			if c.Wire = spoken; spoken == buffstreams.WireBuffStreams {
				c.Confirm = buffstreams.ConfirmEnqueued
			}
		})
	}
	denying := allowing("10.0.0.0/8", buffstreams.WireAcked)
	var failed *buffstreams.PublishError
	for _, topic := range []string{
		h.topic("a"), "[::ffff:" + host + "]:" + port + "/a", "0.0.0.0:" + port + "/a", "unix:///tmp/x.sock#a", "169.254.169.254:80/a",
	} {
		err := denying.Publish(topic, newMessage("x"))
		require.ErrorIs(t, err, buffstreams.ErrDialDenied, topic)
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.NotSent, 1, topic)
	}
	require.ErrorIs(t, denying.Publish("localhost:"+port+"/a", newMessage("x")), buffstreams.ErrDialDenied)
	require.ErrorIs(t, allowing("10.0.0.0/8", buffstreams.WireBuffStreams).Publish(h.address, newMessage("x")), buffstreams.ErrDialDenied)

	permitting := allowing("127.0.0.0/8", buffstreams.WireAcked)
	for i, topic := range []string{h.topic("a"), "[::ffff:" + host + "]:" + port + "/a"} {
		require.NoError(t, permitting.Publish(topic, newMessage(fmt.Sprint(i))))
		require.Equal(t, []string{fmt.Sprint(i)}, receiveAcked(t, messages, 1))
	}
}

func TestInsecure_PlaintextBeyondLoopbackNeedsConsent(t *testing.T) {
	for address, open := range map[string]bool{
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false, "[fe80::1%lo]:0": false, "[::ffff:192.0.2.1]:0": false,
		"127.0.0.1:0": true, "127.8.8.8:0": true, "[::1]:0": true, "[::ffff:127.0.0.1]:0": true, "localhost:0": true,
		"unix://" + filepath.Join(t.TempDir(), "s.sock"): true,
	} {
		if strings.Contains(address, "::1]") && !hasIPv6() {
			continue
		}
		for _, spoken := range []buffstreams.Wire{buffstreams.WireAcked, buffstreams.WireBuffStreams} {
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Wire: spoken}, nil)
			require.NoError(t, err)
			_, err = sub.Subscribe(context.Background(), address)
			if open {
				require.NoError(t, err, address)
			} else {
				require.ErrorIs(t, err, netio.ErrInsecureAddress, address)
				require.ErrorContains(t, err, "set Insecure")
			}
			require.NoError(t, sub.Close())
		}
	}
	// A name is judged by where it led to, a handed-over socket by where it is.
	outside, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	for _, insecure := range []bool{false, true} {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ManagerConfig: buffstreams.ManagerConfig{
			Listen: func(string, string) (net.Listener, error) { return wrapped{outside}, nil },
			Acked:  buffstreams.AckedConfig{Insecure: insecure},
		}}, nil)
		require.NoError(t, err)
		_, err = sub.Subscribe(context.Background(), "localhost:0")
		require.Equal(t, insecure, err == nil, "%v", err)
		require.NoError(t, sub.Close())
		outside, err = net.Listen("tcp", ":0")
		require.NoError(t, err)
	}
	require.NoError(t, outside.Close())
}

// wrapped is a listener whose address has a type of its own.
type wrapped struct{ net.Listener }

type wrappedAddr struct{ net.Addr }

func (w wrapped) Addr() net.Addr { return wrappedAddr{w.Listener.Addr()} }

func hasIPv6() bool {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		_ = ln.Close()
	}
	return err == nil
}

func TestFlush_RefusedAddressHoldsUpNoOther(t *testing.T) {
	refusing := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authenticate: buffstreams.Tokens(nil)}})
	require.NoError(t, refusing.newSubscriber(t, nil).SubscribeInitialize(refusing.topic("a")))
	slow := newHouse(t, buffstreams.ManagerConfig{})
	pub := sender(t, buffstreams.AckedConfig{}, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	require.NoError(t, pub.Publish(slow.topic("a"), newMessage("x")))
	require.NoError(t, pub.Publish(refusing.topic("a"), newMessage("x")))
	result := later(func() error { return pub.Flush(context.Background()) })
	require.Eventually(t, func() bool {
		return errors.Is(pub.Publish(refusing.topic("a"), newMessage("x")), buffstreams.ErrUnauthenticated)
	}, patience, time.Millisecond)
	require.Never(t, func() bool { return len(result) > 0 }, 100*time.Millisecond, time.Millisecond, "it did not wait for the other")
	messages := subscribe(t, slow.newSubscriber(t, nil), slow.topic("a"))
	receiveAcked(t, messages, 1)
	require.ErrorIs(t, requireResult(t, result), buffstreams.ErrUnauthenticated)
}

// TestDialAllow_DeniesWhatAnOutboxWouldKeepForEver: Publish says it, as without an outbox.
func TestDialAllow_DeniesWhatAnOutboxWouldKeepForEver(t *testing.T) {
	ob := openOutbox(t, t.TempDir())
	stored, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: ob, ManagerConfig: buffstreams.ManagerConfig{
		DialAllow: &pool.DialAllow{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, stored.Publish("127.0.0.1:1/a", newMessages(1)...), buffstreams.ErrDialDenied)
	require.Empty(t, ob.Streams())
	require.NoError(t, stored.Close())
}
