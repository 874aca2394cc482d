// Package amqp is the driver of RabbitMQ: amqp://user@host:5672/vhost. A topic is a durable fanout exchange, a group a durable
// queue that is bound to it.
package amqp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

const name = "amqp"

// Driver opens RabbitMQ.
func Driver() driver.Spec {
	parameters := append([]driver.Parameter{
		{Name: "create", Help: "false: an exchange or a queue that is not there is an error; default true"},
		{Name: "queue", Help: "type of queues that are made: quorum (default) or classic"},
	}, driver.SecretParameters("password", "password of the URL's user")...)
	return driver.Spec{
		Name: name, Schemes: []string{"amqp", "amqps"}, Parameters: append(parameters, driver.TLSParameters()...),
		Cannot: map[string]string{
			"start":            "an exchange keeps nothing for queues that come later",
			"confirm=enqueued": "a queue confirms what it has stored",
			"confirm=handled":  "a queue does not tell its publishers what was handled",
			"members":          "it keeps the order of keys with any number of members: one of them is active",
			"redeliver_after":  "the server notices a dead member by its connection",
		},
		OpenBroker: open,
	}
}

// broker keeps a connection, and makes a new one when it is lost.
type broker struct {
	cfg    *driver.Config
	dial   func() (*amqp.Connection, error)
	create bool
	queue  string

	mu       sync.Mutex
	conn     *amqp.Connection // guarded by mu, as what follows
	idle     []*confirmer
	declared map[string]bool // exchanges that are there
	closed   bool
}

func open(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	p, u := &cfg.Params, cfg.URL
	b := &broker{cfg: cfg, create: p.Bool("create", true), queue: p.OneOf("queue", "quorum", "classic"), declared: map[string]bool{}}
	secure, err := p.ClientTLS()
	if err != nil {
		return nil, err
	}
	inURL := ""
	if u.User != nil {
		inURL, _ = u.User.Password()
	}
	user, password := u.User.Username(), p.Secret("password", inURL)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if user == "" {
		user, password = "guest", "guest"
	}
	vhost := "/"
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		vhost = path
	}
	target := url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
	config := amqp.Config{
		Vhost: vhost, SASL: []amqp.Authentication{&amqp.PlainAuth{Username: user, Password: password}}, TLSClientConfig: secure,
		Heartbeat: 5 * time.Second, Dial: amqp.DefaultDial(5 * time.Second), Properties: amqp.Table{"connection_name": "watermill-buffstreams"},
	}
	b.dial = func() (*amqp.Connection, error) { return amqp.DialConfig(target.String(), config) }
	if err := b.Check(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// Check returns nil if there is a connection, or one can be made.
func (b *broker) Check(context.Context) error {
	_, err := b.connection()
	return err
}

// connection returns the connection, and makes a new one where it is lost.
func (b *broker) connection() (*amqp.Connection, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, amqp.ErrClosed
	}
	if b.conn != nil && !b.conn.IsClosed() {
		return b.conn, nil
	}
	conn, err := b.dial()
	if err != nil {
		return nil, fmt.Errorf("engines: amqp: %w", err)
	}
	b.conn, b.idle, b.declared = conn, nil, map[string]bool{}
	return conn, nil
}

func (b *broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.conn == nil || b.conn.IsClosed() {
		return nil
	}
	if err := b.conn.Close(); !errors.Is(err, amqp.ErrClosed) {
		return err
	}
	return nil
}

// exchange makes the exchange of a topic, or finds it.
func (b *broker) exchange(topic string) error {
	if topic == "" {
		return errors.New("engines: amqp: the topic is empty")
	}
	b.mu.Lock()
	known := b.declared[topic]
	b.mu.Unlock()
	if known {
		return nil
	}
	err := b.channel(func(ch *amqp.Channel) error {
		if b.create {
			return ch.ExchangeDeclare(topic, amqp.ExchangeFanout, true, false, false, false, nil)
		}
		return missing("exchange", topic, ch.ExchangeDeclarePassive(topic, amqp.ExchangeFanout, true, false, false, false, nil))
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.declared[topic] = true
	return nil
}

// missing tells that something is not there.
func missing(kind, what string, err error) error {
	var ours *amqp.Error
	if errors.As(err, &ours) && ours.Code == amqp.NotFound {
		return fmt.Errorf("engines: amqp: %s %.200q: %w", kind, what, driver.ErrNoTopic)
	}
	return err
}

// channel calls f with a channel of its own, which an error of the server's closes.
func (b *broker) channel(f func(*amqp.Channel) error) error {
	conn, err := b.connection()
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }()
	return f(ch)
}

// queueName is the queue of a group.
func queueName(topic, group string) string {
	return url.PathEscape(topic) + "/" + url.PathEscape(group)
}

// Declare makes the exchange and the queue of a group.
func (b *broker) Declare(_ context.Context, topic, group string) error {
	if err := b.exchange(topic); err != nil || group == "" {
		return err
	}
	queue := queueName(topic, group)
	return b.channel(func(ch *amqp.Channel) error {
		if !b.create {
			_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			return missing("queue", queue, err)
		}
		args := amqp.Table{"x-queue-type": b.queue}
		if b.cfg.Key != "" {
			args["x-single-active-consumer"] = true
		}
		if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
			return err
		}
		return ch.QueueBind(queue, "", topic, false, nil)
	})
}
