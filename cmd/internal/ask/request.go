// Package ask sends requests over the transport and answers them: what the commands request and reply do.
package ask

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// Metadata keys of requests and replies.
const (
	// ReplyToKey has the address topic that a request wants its reply at.
	ReplyToKey = "reply_to"
	// CorrelationKey has the UUID of the request; Watermill's CorrelationID middleware uses the same key.
	CorrelationKey = "correlation_id"
	// ErrorKey is in a reply that says why there is no answer.
	ErrorKey = "error"
)

// RequestOptions say whom to ask.
type RequestOptions struct {
	Topic string
	// Listen is where replies are listened for: [tls://]host:port. Empty means a free port of the address from which
	// the topic's host is reached.
	Listen string
	// Timeout bounds how long Publish waits.
	Timeout        time.Duration
	MaxMessageSize int
	Access         access.Access
	Logger         watermill.LoggerAdapter
	// Confirm is that of Publish.
	Confirm buffstreams.Confirm
	// OnReply is called for each reply to a request that is not waited for, on one goroutine.
	OnReply func(reply *message.Message)
}

// Requester sends requests. It is safe for concurrent use.
type Requester struct {
	o         RequestOptions
	manager   *buffstreams.Manager
	publisher *buffstreams.Publisher
	sub       *buffstreams.Subscriber
	replyTo   string
	wg        sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]chan *message.Message // by UUID of the request
}

// NewRequester listens for replies.
func NewRequester(o RequestOptions) (r *Requester, err error) {
	address, err := pipe.ParseTopic(o.Topic)
	if err != nil {
		return nil, err
	}
	listen := o.Listen
	if listen == "" {
		if listen, err = localAddress(address.Target); err != nil {
			return nil, err
		}
	}
	acked := pipe.AckedConfig(o.MaxMessageSize)
	if err := errors.Join(o.Access.Client(&acked), o.Access.Server(&acked)); err != nil {
		return nil, err
	}
	acked.Authenticate = nil // the replier was named by this side, and has no token of it
	r = &Requester{o: o, waiting: map[string]chan *message.Message{}}
	if r.manager, err = buffstreams.NewManager(buffstreams.ManagerConfig{Logger: o.Logger, Acked: acked, CloseTimeout: time.Second}); err != nil {
		return nil, err
	}
	err = r.open(listen)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Requester) open(listen string) (err error) {
	r.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: r.manager, Confirm: r.o.Confirm, PublishTimeout: r.o.Timeout, PublishContext: true, CloseTimeout: time.Second,
	}, r.o.Logger)
	if err != nil {
		return err
	}
	r.sub, err = buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: r.manager, Ephemeral: true, MaxInFlight: 64}, r.o.Logger)
	if err != nil {
		return err
	}
	topic := strings.TrimSuffix(listen, "/") + "/replies-" + watermill.NewShortUUID()
	at, err := r.sub.Addr(topic)
	if err != nil {
		return pipe.ExplainListen(topic, err)
	}
	r.replyTo = pipe.WithPort(topic, at)
	messages, err := r.sub.Subscribe(context.Background(), topic)
	if err != nil {
		return err
	}
	r.wg.Go(func() { // ends when Close has closed the subscription
		for m := range messages {
			r.deliver(m)
			m.Ack()
		}
	})
	return nil
}

func (r *Requester) deliver(m *message.Message) {
	r.mu.Lock()
	id := m.Metadata.Get(CorrelationKey)
	waits := r.waiting[id]
	delete(r.waiting, id)
	r.mu.Unlock()
	switch {
	case waits != nil:
		waits <- m // it has room for one
	case r.o.OnReply != nil:
		r.o.OnReply(m)
	}
}

// Explain says why no reply comes: there is no connection, or there is, and nothing answers.
func (r *Requester) Explain() string {
	look, cancel := context.WithCancel(context.Background())
	cancel()
	var missing *buffstreams.NotReadyError
	if errors.As(r.publisher.Ready(look), &missing) {
		return strings.Join(missing.Reasons, "; ")
	}
	return "requests arrive; is a 'buffstreams reply' there?"
}

// Send publishes a request whose reply goes to OnReply.
func (r *Requester) Send(payload []byte, headers map[string]string) error {
	return r.publisher.Publish(r.o.Topic, r.message(payload, headers))
}

func (r *Requester) message(payload []byte, headers map[string]string) *message.Message {
	m := message.NewMessage(watermill.NewUUID(), payload)
	maps.Copy(m.Metadata, headers)
	m.Metadata.Set(ReplyToKey, r.replyTo)
	m.Metadata.Set(CorrelationKey, m.UUID)
	return m
}

// RefusedError is a reply that says why there is no answer.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the request failed at the other side: %.200q", e.Reason)
}

// Request publishes a request and waits for its reply. That ctx is cancelled ends either; its deadline only the latter,
// as Timeout does that of the former.
func (r *Requester) Request(ctx context.Context, payload []byte, headers map[string]string) (*message.Message, error) {
	m := r.message(payload, headers)
	interrupted, stop := pipe.Interrupted(ctx)
	defer stop()
	m.SetContext(interrupted)
	waits := make(chan *message.Message, 1)
	r.mu.Lock()
	r.waiting[m.UUID] = waits
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, m.UUID)
	}()
	if err := r.publisher.Publish(r.o.Topic, m); err != nil {
		return nil, pipe.Explain(err)
	}
	select {
	case reply := <-waits:
		if why := reply.Metadata.Get(ErrorKey); why != "" {
			return nil, &RefusedError{why}
		}
		return reply, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the listening. Replies to come are dropped by their publishers.
func (r *Requester) Close() error {
	var errs []error
	if r.publisher != nil {
		errs = append(errs, r.publisher.Close())
	}
	if r.sub != nil {
		errs = append(errs, r.sub.Close())
	}
	errs = append(errs, r.manager.Close())
	r.wg.Wait()
	return errors.Join(errs...)
}

// localAddress is a free port of the address from which t is reached.
func localAddress(t pipe.Target) (string, error) {
	const loopback = "127.0.0.1:0"
	if t.Network == "unix" {
		return loopback, nil
	}
	conn, err := net.Dial("udp", t.Address) // it sends nothing
	if err != nil {
		return "", fmt.Errorf("cannot find the address that replies reach this side at: %w; name it with --listen", err)
	}
	defer func() { _ = conn.Close() }()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil || local.Addr().Unmap().IsLoopback() {
		return loopback, nil
	}
	return netip.AddrPortFrom(local.Addr().WithZone(""), 0).String(), nil
}
