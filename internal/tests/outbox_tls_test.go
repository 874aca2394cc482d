package tests

import (
	"context"
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// TestOutbox_CertificatesNameTheHost: where a route says which host an address is of, as those of route.DNS and route.SRV
// do, an outbox delivers there too, also what an earlier process has left in it.
func TestOutbox_CertificatesNameTheHost(t *testing.T) {
	const host = "orders.internal"
	for name, policy := range map[string]route.Policy{"failover": route.Failover, "round robin": route.RoundRobin, "all": route.All} {
		t.Run(name, func(t *testing.T) {
			server, client := testkit.SelfSignedTLSFor(t, host)
			address := "tls://" + freeAddress(t)
			resolver := route.Func(func(context.Context, string) (route.Route, error) {
				return route.Route{
					Addresses: []string{address}, Policy: policy, Attributes: map[string]route.Attributes{address: {ServerName: host}},
				}, nil
			})
			dir := t.TempDir()
			var messages <-chan *message.Message
			for life := range 2 {
				ob, err := outbox.Open(outbox.Config{Dir: dir})
				require.NoError(t, err)
				pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
					Resolver: resolver, Outbox: ob,
					ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{ClientTLS: client})},
				}, nil)
				require.NoError(t, err)
				if life == 0 {
					require.NoError(t, pub.Publish("orders", newMessages(3)...)) // nothing listens
				} else {
					sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
						ListenAddress: address,
						ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ServerTLS: server}},
					}, nil)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, sub.Close()) })
					messages = subscribe(t, sub, "orders")
					require.ElementsMatch(t, payloads(newMessages(3)), receiveAcked(t, messages, 3))
					require.NoError(t, pub.Publish("orders", newMessage("new")))
					require.Equal(t, []string{"new"}, receiveAcked(t, messages, 1), fmt.Sprint(policy))
					drain(t, pub)
				}
				require.NoError(t, pub.Close())
				require.NoError(t, ob.Close())
			}
		})
	}
}
