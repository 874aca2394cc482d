// Package amqp is the driver of RabbitMQ: amqp://user@host:5672/vhost. A topic is a durable fanout exchange, a group a
// durable queue that is bound to it.
package amqp

import (
	"cmp"
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
	return driver.Spec{
		Name: name, Schemes: []string{"amqp", "amqps"},
		Parameters: driver.ServerParameters("an exchange or a queue that is not there",
			driver.Parameter{Name: "queue", Help: "type of queues that are made: quorum (default) or classic"}),
		Cannot: map[string]string{
			"start":            "an exchange keeps nothing for queues that come later",
			"confirm=enqueued": "a queue confirms what it has stored",
			"confirm=handled":  "a queue does not tell its publishers what was handled",
			"redeliver_after":  "the server notices a dead member by its connection",
		},
		Cause: cause, OpenBroker: open,
	}
}

// broker keeps two connections, and makes new ones when they are lost: a server without room stops reading from
// connections that publish, so what consumes must not share theirs.
type broker struct {
	cfg    *driver.Config
	dial   func() (*amqp.Connection, error)
	create bool
	queue  string

	mu         sync.Mutex
	consuming  *amqp.Connection // guarded by mu, as what follows
	publishing *amqp.Connection
	blocked    string // why the server reads no more from publishing; empty while it does
	idle       []*confirmer
	declared   map[string]bool // exchanges that are there
	closed     bool
	tasks      sync.WaitGroup // goroutines that end with the connections
}

func open(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	p, u := &cfg.Params, cfg.URL
	b := &broker{cfg: cfg, create: p.Bool("create", true), queue: p.OneOf("queue", "quorum", "classic"), declared: map[string]bool{}}
	secure, err := p.ClientTLS()
	if err != nil {
		return nil, err
	}
	user, password := cfg.Login()
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
	b.dial = func() (*amqp.Connection, error) {
		return amqp.DialConfig(target.String(), amqp.Config{ // a new one each time: the client wipes the password of one that was used
			Vhost: vhost, SASL: []amqp.Authentication{&amqp.PlainAuth{Username: user, Password: password}}, TLSClientConfig: secure,
			Heartbeat: 5 * time.Second, Dial: amqp.DefaultDial(5 * time.Second), Properties: amqp.Table{"connection_name": "watermill-buffstreams"},
		})
	}
	if err := b.Check(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// Check returns nil if there is a connection, or one can be made, and the server takes messages.
func (b *broker) Check(context.Context) error {
	if _, err := b.connection(); err != nil {
		return err
	}
	return b.whyBlocked()
}

// errBlocked means that the server takes no messages for now: it is short of disk or memory.
var errBlocked = errors.New("engines: amqp: the server takes no messages for now")

// whyBlocked returns an error that matches errBlocked while the server takes no messages.
func (b *broker) whyBlocked() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.blockedLocked()
}

func (b *broker) blockedLocked() error {
	if b.blocked == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", errBlocked, b.blocked)
}

// connection returns the connection of everything but publishing, and makes a new one where it is lost.
func (b *broker) connection() (*amqp.Connection, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connectLocked(&b.consuming)
}

func (b *broker) connectLocked(conn **amqp.Connection) (*amqp.Connection, error) {
	if b.closed {
		return nil, amqp.ErrClosed
	}
	if *conn != nil && !(*conn).IsClosed() {
		return *conn, nil
	}
	made, err := b.dial()
	if err != nil {
		return nil, err
	}
	*conn, b.declared = made, map[string]bool{}
	return made, nil
}

// publisherLocked returns the connection of what publishes.
func (b *broker) publisherLocked() (*amqp.Connection, error) {
	had := b.publishing
	conn, err := b.connectLocked(&b.publishing)
	if err != nil || conn == had {
		return conn, err
	}
	b.idle, b.blocked = nil, ""
	changes := conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	b.tasks.Go(func() { // ends with the connection
		for change := range changes {
			b.noteBlocked(conn, change)
		}
	})
	return conn, nil
}

func (b *broker) noteBlocked(conn *amqp.Connection, change amqp.Blocking) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if conn != b.publishing {
		return
	}
	b.blocked = ""
	if change.Active {
		b.blocked = cmp.Or(change.Reason, "it does not say why")
		b.cfg.Logger.Error("The server takes no messages; waiting until it does", b.blockedLocked(), nil)
		return
	}
	b.cfg.Logger.Info("The server takes messages again", nil)
}

// closeTimeout bounds the goodbye to a server, which does not answer while it has no room.
const closeTimeout = 5 * time.Second

func (b *broker) Close() error {
	b.mu.Lock()
	b.closed = true
	conns := []*amqp.Connection{b.publishing, b.consuming}
	b.mu.Unlock()
	var errs []error
	for _, conn := range conns {
		if conn == nil || conn.IsClosed() {
			continue
		}
		if err := conn.CloseDeadline(time.Now().Add(closeTimeout)); !errors.Is(err, amqp.ErrClosed) {
			errs = append(errs, err)
		}
	}
	b.tasks.Wait()
	return errors.Join(errs...)
}

// cause is the cause of an error of AMQP, by its code.
func cause(err error) *driver.Cause {
	var ours *amqp.Error
	if errors.Is(err, errBlocked) || errors.Is(err, errNacked) {
		return driver.ErrFull
	}
	if !errors.As(err, &ours) {
		return nil
	}
	switch {
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrSASL):
		return driver.ErrCredentials
	case ours.Code == amqp.NotAllowed:
		return driver.ErrNoDatabase
	case ours.Code == amqp.AccessRefused:
		return driver.ErrDenied
	case ours.Code == amqp.FrameError, ours.Code == amqp.SyntaxError, ours.Code == amqp.UnexpectedFrame:
		return driver.ErrProtocol
	case ours.Code == amqp.PreconditionFailed, ours.Code == amqp.NotImplemented:
		return driver.ErrUnavailable
	case ours.Code == amqp.ConnectionForced, errors.Is(err, amqp.ErrClosed):
		return driver.ErrUnreachable
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
		if b.cfg.Key != "" || b.cfg.Members == 1 { // else the next member gets what is new before what a dead one had in hand
			args["x-single-active-consumer"] = true
		}
		if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
			return err
		}
		return b.forgetMissing(topic, ch.QueueBind(queue, "", topic, false, nil))
	})
}

// forgetMissing has the next call make an exchange that is gone.
func (b *broker) forgetMissing(topic string, err error) error {
	var ours *amqp.Error
	if errors.As(err, &ours) && ours.Code == amqp.NotFound {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.declared, topic)
	}
	return err
}
