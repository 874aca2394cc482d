package cqrsx

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/requestreply"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// ReplierConfig configures a Replier. Manager is needed.
type ReplierConfig struct {
	// Manager owns the connections to requesters. Their addresses come from commands: set ManagerConfig.DialAllow if
	// not all who send commands are trusted.
	Manager *buffstreams.Manager
	// NackCommandErrors makes a handler's error nack the command, so that it is handled again and replied to again.
	// False means that the error is the reply, and the command is done.
	NackCommandErrors bool
	// OnDropped is called for each reply that was dropped after it was sent: its requester has given up, or is away for
	// more than a second. encoded is the reply as the transport sends it. It must not block for long. Nil means a log
	// line.
	OnDropped func(topic string, encoded []byte, err error)
	// Logger nil means none.
	Logger watermill.LoggerAdapter
}

// Replier is the Backend of handlers that reply: give it to requestreply.NewCommandHandler or
// NewCommandHandlerWithResult. A reply that cannot be delivered (no address, one that may not be dialed, a requester
// that is gone) is logged and dropped, and its command is done: handling it again would bring no reply either. It is
// safe for concurrent use.
type Replier[Result any] struct {
	backend   *requestreply.PubSubBackend[Result]
	publisher *buffstreams.Publisher
	logger    watermill.LoggerAdapter
}

// NewReplier returns a Replier. marshaler nil means JSON; both sides need the same.
func NewReplier[Result any](cfg ReplierConfig, marshaler requestreply.BackendPubsubMarshaler[Result]) (*Replier[Result], error) {
	if cfg.Manager == nil {
		return nil, ErrNoManager
	}
	p := &Replier[Result]{logger: cfg.Logger}
	if p.logger == nil {
		p.logger = watermill.NopLogger{}
	}
	var err error
	p.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: cfg.Manager, Ephemeral: true, OnFailure: cfg.OnDropped,
	}, cfg.Logger)
	if err != nil {
		return nil, err
	}
	p.backend, err = requestreply.NewPubSubBackend(requestreply.PubSubBackendConfig{
		Publisher: p.publisher,
		SubscriberConstructor: func(requestreply.PubSubBackendSubscribeParams) (message.Subscriber, error) {
			return nil, errAsks
		},
		GenerateSubscribeTopic: func(requestreply.PubSubBackendSubscribeParams) (string, error) { return "", errAsks },
		GeneratePublishTopic: func(q requestreply.PubSubBackendPublishParams) (string, error) {
			return replyTopic(q.CommandMessage.Metadata.Get(ReplyToKey), q.OperationID), nil
		},
		AckCommandErrors:         !cfg.NackCommandErrors,
		ReplyPublishErrorHandler: p.onError,
		Logger:                   cfg.Logger,
	}, orJSONReplies(marshaler))
	if err != nil {
		return nil, errors.Join(err, p.publisher.Close())
	}
	return p, nil
}

var errAsks = errors.New("cqrsx: a Replier sends no commands: use a Requester")

// ListenForNotifications implements requestreply.Backend: it is an error, as a Replier does not ask.
func (p *Replier[Result]) ListenForNotifications(context.Context, requestreply.BackendListenForNotificationsParams) (<-chan requestreply.Reply[Result], error) {
	return nil, errAsks
}

// OnCommandProcessed implements requestreply.Backend: it sends the reply. A command that names no address for it was
// not sent by a Requester: there is nothing to reply, and its handler's error nacks it.
func (p *Replier[Result]) OnCommandProcessed(ctx context.Context, params requestreply.BackendOnCommandProcessedParams[Result]) error {
	sent := params.CommandMessage.Metadata
	if sent.Get(ReplyToKey) == "" || sent.Get(requestreply.OperationIDMetadataKey) == "" {
		return params.HandleErr
	}
	return p.backend.OnCommandProcessed(ctx, params)
}

// onError decides whether a reply that could not be published nacks its command.
func (p *Replier[Result]) onError(topic string, _ *message.Message, err error) error {
	if errors.Is(err, buffstreams.ErrPublisherClosed) || errors.Is(err, buffstreams.ErrManagerClosed) {
		return err // another process may be able to reply
	}
	p.logger.Error("Reply dropped: it cannot be sent", err, watermill.LogFields{
		"provider": "buffstreams", "topic": quoted(topic),
	})
	return nil
}

// Close waits for replies that are on their way, for a few seconds at most. Close the Router first.
func (p *Replier[Result]) Close() error { return p.publisher.Close() }

// quoted is a text of a peer as logs show it.
func quoted(s string) string { return fmt.Sprintf("%.100q", s) }
