package buffstreams_test

import (
	"context"
	"errors"
	"log"
	"net/netip"
	"os"
	"strings"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// A subscriber that lets in only peers with a certificate of its own authority, and each of them only to its own topics.
func Example_mutualTLS() {
	server, err := buffstreams.TLSFiles{
		Certificate: "/etc/billing/tls.crt", Key: "/etc/billing/tls.key", // read again when they change
		CA: "/etc/billing/clients.crt", // demands client certificates
	}.Server()
	if err != nil {
		log.Fatal(err)
	}
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: "tls://:5031",
		ConsumerGroup: "billing",
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
			ServerTLS:    server,
			Authenticate: buffstreams.CertificateName, // the principal is the certificate's common name
			Authorize: func(_ context.Context, a buffstreams.Access) error {
				if a.Action == buffstreams.ActionPublish && !strings.HasPrefix(a.Topic, a.Principal+".") {
					return errors.New("not a topic of this principal")
				}
				return nil
			},
		}},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}

	client, err := buffstreams.TLSFiles{
		Certificate: "/etc/shop/tls.crt", Key: "/etc/shop/tls.key", CA: "/etc/shop/servers.crt",
	}.Client()
	if err != nil {
		log.Fatal(err)
	}
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.To("tls://billing.internal:5031"),
		ManagerConfig: buffstreams.ManagerConfig{
			Acked:     buffstreams.AckedConfig{ClientTLS: client},
			DialAllow: &pool.DialAllow{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}},
		},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	// Subscribe and publish, and in the end:
	if err := errors.Join(publisher.Close(), subscriber.Close()); err != nil {
		log.Fatal(err)
	}
}

// Tokens in place of client certificates. The listener's own certificate is needed all the same: a token is not sent
// without it.
func Example_tokens() {
	server, err := buffstreams.TLSFiles{Certificate: "/etc/billing/tls.crt", Key: "/etc/billing/tls.key"}.Server()
	if err != nil {
		log.Fatal(err)
	}
	receiver := buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		ServerTLS:    server,
		Authenticate: buffstreams.Tokens(map[string]string{os.Getenv("SHOP_TOKEN"): "shop"}),
	}}
	sender := buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		Token: func(_ context.Context, address string) (string, error) { // asked at every connect
			if address != "tls://billing.internal:5031" {
				return "", nil // no other peer gets to see it
			}
			token, err := os.ReadFile("/run/secrets/billing-token")
			return strings.TrimSpace(string(token)), err
		},
	}}
	_, _ = receiver, sender
}
