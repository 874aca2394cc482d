package demo

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"net"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// A file that does not parse is tried so many times more before it is poisoned.
const (
	maxRetries    = 2
	retryInterval = 10 * time.Millisecond
)

// maxReason bounds the reason in a poisoned message's metadata: an error of the parser can quote a literal of any
// length.
const maxReason = 1 << 10

type deskConfig struct {
	workers    int // messages that are handled at a time
	limit      int // of a payload, in bytes
	ledger     *ledger
	onPoisoned func(name, reason string)
}

// desk is the receiving side: a router at an address, for the files and for the poison queue.
type desk struct {
	cfg                deskConfig
	topic, poisonTopic string

	manager   *buffstreams.Manager
	publisher *buffstreams.Publisher // of the poison queue
	router    *message.Router
	running   sync.WaitGroup
	runErr    error // the router's, once running is done
}

// openDesk listens at a free port and returns when messages are taken.
func openDesk(cfg deskConfig) (*desk, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: pipe.AckedConfig(cfg.limit), Listen: listenWith(ln)})
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	d := &desk{
		cfg: cfg, manager: manager,
		topic: ln.Addr().String() + "/files", poisonTopic: ln.Addr().String() + "/poison",
	}
	if err = d.start(); err != nil {
		return nil, errors.Join(err, manager.Close(), ln.Close())
	}
	return d, nil
}

// listenWith hands over a socket that is there: its port is part of the topics before anybody subscribes.
func listenWith(ln net.Listener) pool.ListenFunc {
	var once sync.Once
	return func(network, address string) (l net.Listener, err error) {
		once.Do(func() { l = ln })
		if l == nil {
			return nil, fmt.Errorf("demo: second listener at %s", address)
		}
		return l, nil
	}
}

func (d *desk) start() (err error) {
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: d.manager, ConsumerGroup: "demo", MaxInFlight: d.cfg.workers,
	}, nil)
	if err != nil {
		return err
	}
	if d.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: d.manager}, nil); err != nil {
		return err
	}
	d.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	// The first middleware is the outermost: what Retry gives up, PoisonQueue takes.
	poison, err := middleware.PoisonQueue(d.publisher, d.poisonTopic)
	if err != nil {
		return err
	}
	retry := middleware.Retry{MaxRetries: maxRetries, InitialInterval: retryInterval, Multiplier: 2, MaxInterval: time.Second}
	d.router.AddConsumerHandler("parse", d.topic, subscriber, d.parse).
		AddMiddleware(d.cfg.ledger.countDelivery, poison, retry.Middleware, middleware.Recoverer)
	d.router.AddConsumerHandler("poison", d.poisonTopic, subscriber, d.poisoned)
	d.running.Go(func() { d.runErr = d.router.Run(context.Background()) }) // ends with the router's Close
	<-d.router.Running()
	return nil
}

// parse is the handler. Whether a file parses does not depend on how identifiers resolve, so that this part is left
// out.
func (d *desk) parse(m *message.Message) error {
	d.cfg.ledger.countAttempt()
	name := m.Metadata.Get(pathKey)
	_, err := parser.ParseFile(token.NewFileSet(), name, []byte(m.Payload), parser.SkipObjectResolution)
	if err != nil {
		reason := err.Error()
		return errors.New(reason[:min(len(reason), maxReason)])
	}
	d.cfg.ledger.arrive(m.UUID, handled, digest(name, m.Payload), len(m.Payload))
	return nil
}

// poisoned is the handler of the poison queue.
func (d *desk) poisoned(m *message.Message) error {
	name := m.Metadata.Get(pathKey)
	d.cfg.ledger.arrive(m.UUID, poisoned, digest(name, m.Payload), len(m.Payload))
	d.cfg.onPoisoned(name, m.Metadata.Get(middleware.ReasonForPoisonedKey))
	return nil
}

// close ends the router when its handlers are done, then the sockets.
func (d *desk) close() error {
	err := d.router.Close()
	d.running.Wait()
	return errors.Join(err, d.runErr, d.publisher.Close(), d.manager.Close())
}
