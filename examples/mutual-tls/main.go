// Mutual TLS: both sides show a certificate, and the names in them decide who may do what. Certificates are renewed
// without a restart.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

var logger = watermill.NopLogger{}

func main() {
	dir, err := os.MkdirTemp("", "tls")
	check(err)
	defer func() { _ = os.RemoveAll(dir) }()
	authority := newAuthority(dir)

	files := authority.issue("billing")
	server, err := files.Server()
	check(err)
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: "tls://127.0.0.1:0", ConsumerGroup: "billing",
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
			ServerTLS: server, Authenticate: buffstreams.CertificateName,
			Authorize: func(_ context.Context, a buffstreams.Access) error {
				if a.Action == buffstreams.ActionPublish && a.Principal != "shop" {
					return errors.New("only the shop may")
				}
				return nil
			},
		}},
	}, logger)
	check(err)
	orders, err := subscriber.Subscribe(context.Background(), "orders")
	check(err)
	bound, err := subscriber.Addr("orders")
	check(err)
	go func() {
		for msg := range orders {
			fmt.Println("billing handled", string(msg.Payload))
			msg.Ack()
		}
	}()

	address := "tls://" + bound.String()
	publish(authority.issue("shop"), address, "order 1")
	publish(authority.issue("mallory"), address, "order 2")
	publish(newAuthority(dir).issue("shop"), address, "order 3") // of an authority that is not trusted

	before := authority.serial("billing")
	authority.issue("billing") // the same files: the next handshake uses what is in them then
	fmt.Println("renewed:", authority.serial("billing") != before)
	publish(authority.issue("shop"), address, "order 4")
	check(subscriber.Close())
}

// publish is another service, which starts, publishes and ends.
func publish(files buffstreams.TLSFiles, address, order string) {
	client, err := files.Client()
	check(err)
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.To(address), Confirm: buffstreams.ConfirmHandled,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ClientTLS: client}},
	}, logger)
	check(err)
	err = publisher.Publish("orders", message.NewMessage(watermill.NewUUID(), []byte(order)))
	switch {
	case errors.Is(err, buffstreams.ErrForbidden):
		fmt.Println(order, "is forbidden")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		fmt.Println(order, "is not sent: the listener's certificate is of another authority")
	case err != nil:
		log.Fatal(err)
	}
	_ = publisher.Close()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
