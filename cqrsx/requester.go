package cqrsx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/requestreply"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// ReplyToKey is the metadata key of a command under which a Requester says at which address it listens for the reply.
const ReplyToKey = "buffstreams_reply_to"

// DefaultReplyTimeout is how long a Requester waits for a reply.
const DefaultReplyTimeout = 30 * time.Second

// RequesterConfig configures a Requester. Manager and Publisher are needed.
type RequesterConfig struct {
	// Manager owns the listener for replies, which lives as long as it does.
	Manager *buffstreams.Manager
	// Publisher sends the commands. It is not closed with the Requester.
	Publisher message.Publisher
	// ListenAddress is where replies are listened for; empty means a free port of 127.0.0.1.
	ListenAddress string
	// AdvertisedAddress is what repliers dial: a host, whose port is then the listener's, or host:port, either with
	// tls:// before it. Empty means the listener's own address, which must then be one that others can dial, not
	// 0.0.0.0.
	AdvertisedAddress string
	// Timeout is how long Ask waits for a reply; 0 means 30 s. A context that ends earlier is respected.
	Timeout time.Duration
	// Bus configures the command bus; the zero value means CommandBusConfig(nil, Logger).
	Bus cqrs.CommandBusConfig
	// Logger nil means none.
	Logger watermill.LoggerAdapter
}

// Requester sends commands and returns their replies. Each reply comes on an ephemeral topic of its own, which ends
// with the request: nothing is left of it at either end. It is safe for concurrent use.
type Requester[Result any] struct {
	bus     *cqrs.CommandBus
	backend *requestreply.PubSubBackend[Result]
	replies *buffstreams.Subscriber
	address string
}

// NewRequester listens for replies. marshaler nil means JSON; both sides need the same.
func NewRequester[Result any](cfg RequesterConfig, marshaler requestreply.BackendPubsubMarshaler[Result]) (*Requester[Result], error) {
	if cfg.Manager == nil {
		return nil, ErrNoManager
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("cqrsx: RequesterConfig.Timeout: %v is negative", cfg.Timeout)
	}
	listen := cmp.Or(cfg.ListenAddress, "127.0.0.1:0")
	replies, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: cfg.Manager, Ephemeral: true}, cfg.Logger)
	if err != nil {
		return nil, err
	}
	q := &Requester[Result]{replies: replies}
	if err := q.init(cfg, listen, marshaler); err != nil {
		return nil, errors.Join(err, replies.Close())
	}
	return q, nil
}

func (q *Requester[Result]) init(cfg RequesterConfig, listen string, marshaler requestreply.BackendPubsubMarshaler[Result]) error {
	bound, err := q.replies.Addr(replyTopic(listen, ""))
	if err != nil {
		return err
	}
	if q.address, err = advertised(cfg.AdvertisedAddress, listen, bound); err != nil {
		return err
	}
	if q.backend, err = requestreply.NewPubSubBackend(backendOfRequester(cfg, q.replies, listen), orJSONReplies(marshaler)); err != nil {
		return err
	}
	q.bus, err = cqrs.NewCommandBusWithConfig(cfg.Publisher, withReplyTo(cfg, q.address))
	return err
}

func backendOfRequester(cfg RequesterConfig, replies message.Subscriber, listen string) requestreply.PubSubBackendConfig {
	timeout := cmp.Or(cfg.Timeout, DefaultReplyTimeout)
	return requestreply.PubSubBackendConfig{
		Publisher: cfg.Publisher,
		SubscriberConstructor: func(requestreply.PubSubBackendSubscribeParams) (message.Subscriber, error) {
			return replies, nil
		},
		GenerateSubscribeTopic: func(p requestreply.PubSubBackendSubscribeParams) (string, error) {
			return replyTopic(listen, p.OperationID), nil
		},
		GeneratePublishTopic: func(requestreply.PubSubBackendPublishParams) (string, error) {
			return "", errors.New("cqrsx: a Requester sends no replies: make the handler with a Replier")
		},
		ListenForReplyTimeout: &timeout, Logger: cfg.Logger,
	}
}

// withReplyTo is the configuration of the bus, which adds the address to each command.
func withReplyTo(cfg RequesterConfig, address string) cqrs.CommandBusConfig {
	bus := cfg.Bus
	if bus.GeneratePublishTopic == nil && bus.Marshaler == nil {
		own := CommandBusConfig(nil, cfg.Logger)
		own.OnSend = bus.OnSend
		bus = own
	}
	users := bus.OnSend
	bus.OnSend = func(p cqrs.CommandBusOnSendParams) error {
		p.Message.Metadata.Set(ReplyToKey, address)
		if users == nil {
			return nil
		}
		return users(p)
	}
	return bus
}

// advertised returns the address that repliers dial.
func advertised(configured, listen string, bound net.Addr) (string, error) {
	if strings.HasPrefix(listen, "unix://") {
		return cmp.Or(configured, listen), nil
	}
	scheme, _, explicit := strings.Cut(listen, "://")
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return "", err
	}
	if configured == "" {
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			return "", fmt.Errorf("cqrsx: RequesterConfig.AdvertisedAddress: replies are listened for at %s, which others cannot dial; "+
				"set the name or address of this host", bound)
		}
		configured = host
	} else if s, rest, ok := strings.Cut(configured, "://"); ok {
		scheme, configured, explicit = s, rest, true
	}
	if _, _, err := net.SplitHostPort(configured); err != nil {
		configured = net.JoinHostPort(strings.Trim(configured, "[]"), port)
	}
	if explicit {
		return scheme + "://" + configured, nil
	}
	return configured, nil
}

// Address is where replies come: it travels with each command.
func (q *Requester[Result]) Address() string { return q.address }

// Ask sends a command and returns its handler's result, or the text of its error in a requestreply.CommandHandlerError.
// A requestreply.ReplyTimeoutError says that no reply came in time, and a requestreply.ReplyUnmarshalError that it
// cannot be read; the command may have been handled, or will be. Any other error is of the command's Publish or of ctx.
func (q *Requester[Result]) Ask(ctx context.Context, command any) (Result, error) {
	reply, err := requestreply.SendWithReply[Result](ctx, q.bus, q.backend, command)
	switch {
	case err != nil:
		return reply.HandlerResult, err
	case errors.As(reply.Error, new(requestreply.ReplyTimeoutError)), errors.As(reply.Error, new(requestreply.ReplyUnmarshalError)):
		return reply.HandlerResult, reply.Error
	case reply.Error != nil:
		return reply.HandlerResult, requestreply.CommandHandlerError{Err: reply.Error}
	}
	return reply.HandlerResult, nil
}

// Bus returns the command bus, for commands that expect several replies or none: with Backend it is what
// requestreply.SendWithReplies needs.
func (q *Requester[Result]) Bus() *cqrs.CommandBus { return q.bus }

// Backend returns the side of Watermill's request-reply that listens.
func (q *Requester[Result]) Backend() *requestreply.PubSubBackend[Result] { return q.backend }

// Close ends all requests that wait: their Ask returns a requestreply.ReplyTimeoutError. Replies that come later are
// dropped by their Replier.
func (q *Requester[Result]) Close() error { return q.replies.Close() }

func replyTopic(address string, id requestreply.OperationID) string {
	if strings.HasPrefix(address, "unix://") {
		return address + "#reply-" + string(id)
	}
	return address + "/reply-" + string(id)
}

func orJSONReplies[Result any](m requestreply.BackendPubsubMarshaler[Result]) requestreply.BackendPubsubMarshaler[Result] {
	if m == nil {
		return requestreply.BackendPubsubJSONMarshaler[Result]{}
	}
	return m
}
