// Package cqrsx wires Watermill's CQRS and request-reply components to this transport. It returns Watermill's own
// configurations, filled in, so that whatever differs can be changed before they are used.
//
// Commands go to the topic "commands.NAME", events to "events.NAME". Every handler is a consumer group of its own,
// named after it: processes with the same handler share its messages, different handlers of one event each get all of
// them.
package cqrsx

import (
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// ErrNoManager is returned where a configuration has no Manager. Handlers, buses and requesters of a process share one:
// without it each would open the same port.
var ErrNoManager = errors.New("cqrsx: there is no Manager: make one with buffstreams.NewManager and share it")

// GroupTopic is the topic of all events that event groups handle, so that a group sees them in order.
const GroupTopic = "events"

// JSON is the marshaler where a nil one is given: the name of a message is the name of its type, without the package.
var JSON cqrs.CommandEventMarshaler = cqrs.JSONMarshaler{GenerateName: cqrs.StructName}

// subscribers makes a Subscriber for a handler, in a group of that name.
func subscribers(sub buffstreams.SubscriberConfig, logger watermill.LoggerAdapter) func(group string) (message.Subscriber, error) {
	return func(group string) (message.Subscriber, error) {
		if sub.Manager == nil {
			return nil, ErrNoManager
		}
		own := sub
		own.ConsumerGroup = group
		s, err := buffstreams.NewSubscriber(own, logger)
		if err != nil {
			return nil, fmt.Errorf("cqrsx: handler %q: %w", group, err)
		}
		return s, nil
	}
}

// CommandProcessorConfig returns the configuration of a cqrs.CommandProcessor whose handlers listen as sub says: its
// Manager and ListenAddress are needed, its ConsumerGroup is the handler's name. marshaler nil means JSON, logger nil
// none. A handler's error nacks its command, which comes again.
func CommandProcessorConfig(sub buffstreams.SubscriberConfig, marshaler cqrs.CommandEventMarshaler, logger watermill.LoggerAdapter) cqrs.CommandProcessorConfig {
	subscriber := subscribers(sub, logger)
	return cqrs.CommandProcessorConfig{
		GenerateSubscribeTopic: func(p cqrs.CommandProcessorGenerateSubscribeTopicParams) (string, error) {
			return commandTopic(p.CommandName), nil
		},
		SubscriberConstructor: func(p cqrs.CommandProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return subscriber(p.HandlerName)
		},
		Marshaler: orJSON(marshaler), Logger: logger,
	}
}

// EventProcessorConfig is CommandProcessorConfig for a cqrs.EventProcessor.
func EventProcessorConfig(sub buffstreams.SubscriberConfig, marshaler cqrs.CommandEventMarshaler, logger watermill.LoggerAdapter) cqrs.EventProcessorConfig {
	subscriber := subscribers(sub, logger)
	return cqrs.EventProcessorConfig{
		GenerateSubscribeTopic: func(p cqrs.EventProcessorGenerateSubscribeTopicParams) (string, error) {
			return eventTopic(p.EventName), nil
		},
		SubscriberConstructor: func(p cqrs.EventProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return subscriber(p.HandlerName)
		},
		Marshaler: orJSON(marshaler), Logger: logger,
	}
}

// EventGroupProcessorConfig is EventProcessorConfig for a cqrs.EventGroupProcessor: a group's handlers share one
// subscription to GroupTopic, in a consumer group with the group's name, and see its events in order. Events that a
// group has no handler for are acked. Publish with GroupEventBusConfig.
func EventGroupProcessorConfig(sub buffstreams.SubscriberConfig, marshaler cqrs.CommandEventMarshaler, logger watermill.LoggerAdapter) cqrs.EventGroupProcessorConfig {
	subscriber := subscribers(sub, logger)
	return cqrs.EventGroupProcessorConfig{
		GenerateSubscribeTopic: func(cqrs.EventGroupProcessorGenerateSubscribeTopicParams) (string, error) {
			return GroupTopic, nil
		},
		SubscriberConstructor: func(p cqrs.EventGroupProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return subscriber(p.EventGroupName)
		},
		AckOnUnknownEvent: true,
		Marshaler:         orJSON(marshaler), Logger: logger,
	}
}

// CommandBusConfig returns the configuration of a cqrs.CommandBus for the handlers of CommandProcessorConfig. Its
// Publisher needs a Resolver that knows where "commands.NAME" goes. marshaler nil means JSON, logger nil none.
func CommandBusConfig(marshaler cqrs.CommandEventMarshaler, logger watermill.LoggerAdapter) cqrs.CommandBusConfig {
	return cqrs.CommandBusConfig{
		GeneratePublishTopic: func(p cqrs.CommandBusGeneratePublishTopicParams) (string, error) {
			return commandTopic(p.CommandName), nil
		},
		Marshaler: orJSON(marshaler), Logger: logger,
	}
}

// EventBusConfig is CommandBusConfig for a cqrs.EventBus and the handlers of EventProcessorConfig.
func EventBusConfig(marshaler cqrs.CommandEventMarshaler, logger watermill.LoggerAdapter) cqrs.EventBusConfig {
	return cqrs.EventBusConfig{
		GeneratePublishTopic: func(p cqrs.GenerateEventPublishTopicParams) (string, error) {
			return eventTopic(p.EventName), nil
		},
		Marshaler: orJSON(marshaler), Logger: logger,
	}
}

// GroupEventBusConfig is EventBusConfig for the groups of EventGroupProcessorConfig.
func GroupEventBusConfig(marshaler cqrs.CommandEventMarshaler, logger watermill.LoggerAdapter) cqrs.EventBusConfig {
	cfg := EventBusConfig(marshaler, logger)
	cfg.GeneratePublishTopic = func(cqrs.GenerateEventPublishTopicParams) (string, error) { return GroupTopic, nil }
	return cfg
}

func commandTopic(name string) string { return "commands." + name }
func eventTopic(name string) string   { return "events." + name }

func orJSON(m cqrs.CommandEventMarshaler) cqrs.CommandEventMarshaler {
	if m == nil {
		return JSON
	}
	return m
}
