package components

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cqrsx"
)

type orderPlaced struct{ ID string }
type orderPaid struct{ ID string }
type placeOrder struct{ ID string }

// at is what cqrsx takes: the subscriber's Manager and address.
func (p *pair) at() buffstreams.SubscriberConfig {
	return buffstreams.SubscriberConfig{Manager: p.listens, ListenAddress: p.address}
}

// Each handler of an event gets it, and each command is handled once, with all of them on one listener.
func TestCQRS_JSON(t *testing.T) {
	p := newPair(t)
	r := newRouter(t)
	var placed, mailed, booked tally
	events, err := cqrs.NewEventProcessorWithConfig(r, cqrsx.EventProcessorConfig(p.at(), nil, nil))
	require.NoError(t, err)
	require.NoError(t, events.AddHandlers(
		cqrs.NewEventHandler("mail", func(_ context.Context, e *orderPlaced) error { mailed.add(e.ID); return nil }),
		cqrs.NewEventHandler("book", func(_ context.Context, e *orderPlaced) error {
			if booked.add(e.ID); booked.count(e.ID) == 1 {
				return errWanted // comes again to this handler alone
			}
			return nil
		}),
	))
	commands, err := cqrs.NewCommandProcessorWithConfig(r, cqrsx.CommandProcessorConfig(p.at(), nil, nil))
	require.NoError(t, err)
	own, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: p.listens}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, own.Close()) })
	toSelf := cqrsx.EventBusConfig(nil, nil)
	inner := toSelf.GeneratePublishTopic
	toSelf.GeneratePublishTopic = func(q cqrs.GenerateEventPublishTopicParams) (string, error) {
		name, err := inner(q)
		return p.topic(name), err
	}
	bus, err := cqrs.NewEventBusWithConfig(own, toSelf)
	require.NoError(t, err)
	require.NoError(t, commands.AddHandlers(cqrs.NewCommandHandler("place", func(ctx context.Context, c *placeOrder) error {
		placed.add(c.ID)
		return bus.Publish(ctx, &orderPlaced{c.ID})
	})))
	run(t, r)
	asks, err := cqrs.NewCommandBusWithConfig(p.publisher(t), cqrsx.CommandBusConfig(nil, nil))
	require.NoError(t, err)
	for _, id := range numbers(5) {
		require.NoError(t, asks.Send(t.Context(), &placeOrder{id}))
	}
	require.Equal(t, numbers(5), mailed.await(t, 5))
	require.Equal(t, []string{"0", "0", "1", "1", "2", "2", "3", "3", "4", "4"}, booked.await(t, 10))
	require.Equal(t, numbers(5), placed.all())
}

func TestCQRS_Protobuf(t *testing.T) {
	p := newPair(t)
	r := newRouter(t)
	marshaler := cqrs.ProtobufMarshaler{GenerateName: cqrs.StructName}
	var got tally
	commands, err := cqrs.NewCommandProcessorWithConfig(r, cqrsx.CommandProcessorConfig(p.at(), marshaler, nil))
	require.NoError(t, err)
	require.NoError(t, commands.AddHandlers(cqrs.NewCommandHandler("say", func(_ context.Context, c *wrapperspb.StringValue) error {
		got.add(c.GetValue())
		return nil
	})))
	run(t, r)
	bus, err := cqrs.NewCommandBusWithConfig(p.publisher(t), cqrsx.CommandBusConfig(marshaler, nil))
	require.NoError(t, err)
	for _, s := range numbers(5) {
		require.NoError(t, bus.Send(t.Context(), wrapperspb.String(s)))
	}
	require.Equal(t, numbers(5), got.await(t, 5))
}

// Two processes with the same handler share its commands.
func TestCQRS_ProcessesWithTheSameHandlerShare(t *testing.T) {
	p := newPair(t)
	var got tally
	for range 2 {
		r := newRouter(t)
		commands, err := cqrs.NewCommandProcessorWithConfig(r, cqrsx.CommandProcessorConfig(p.at(), nil, nil))
		require.NoError(t, err)
		require.NoError(t, commands.AddHandlers(cqrs.NewCommandHandler("place", func(_ context.Context, c *placeOrder) error {
			got.add(c.ID)
			return nil
		})))
		run(t, r)
	}
	bus, err := cqrs.NewCommandBusWithConfig(p.publisher(t), cqrsx.CommandBusConfig(nil, nil))
	require.NoError(t, err)
	for _, id := range numbers(50) {
		require.NoError(t, bus.Send(t.Context(), &placeOrder{id}))
	}
	require.ElementsMatch(t, numbers(50), got.await(t, 50))
}

// The handlers of an event group see its events in the order in which they were published, and each group sees all of
// them, those that it has no handler for as well.
func TestCQRS_EventGroupsKeepOrder(t *testing.T) {
	p := newPair(t)
	r := newRouter(t)
	var whole, part tally
	groups, err := cqrs.NewEventGroupProcessorWithConfig(r, cqrsx.EventGroupProcessorConfig(p.at(), nil, watermill.NopLogger{}))
	require.NoError(t, err)
	require.NoError(t, groups.AddHandlersGroup("whole",
		cqrs.NewGroupEventHandler(func(_ context.Context, e *orderPlaced) error { whole.add("placed " + e.ID); return nil }),
		cqrs.NewGroupEventHandler(func(_ context.Context, e *orderPaid) error { whole.add("paid " + e.ID); return nil }),
	))
	require.NoError(t, groups.AddHandlersGroup("part",
		cqrs.NewGroupEventHandler(func(_ context.Context, e *orderPaid) error { part.add(e.ID); return nil }),
	))
	run(t, r)
	bus, err := cqrs.NewEventBusWithConfig(p.publisher(t), cqrsx.GroupEventBusConfig(nil, nil))
	require.NoError(t, err)
	var want []string
	for _, id := range numbers(20) {
		require.NoError(t, bus.Publish(t.Context(), &orderPlaced{id}))
		require.NoError(t, bus.Publish(t.Context(), &orderPaid{id}))
		want = append(want, "placed "+id, "paid "+id)
	}
	require.Equal(t, want, whole.await(t, 40))
	require.Equal(t, numbers(20), part.await(t, 20))
}

// Several versions of one message type in one protobuf marshaler: names keep them apart.
func TestCQRS_ProtobufNames(t *testing.T) {
	p := newPair(t)
	r := newRouter(t)
	marshaler := cqrs.ProtobufMarshaler{} // full names
	var got tally
	events, err := cqrs.NewEventProcessorWithConfig(r, cqrsx.EventProcessorConfig(p.at(), marshaler, nil))
	require.NoError(t, err)
	require.NoError(t, events.AddHandlers(
		cqrs.NewEventHandler("strings", func(_ context.Context, e *wrapperspb.StringValue) error { got.add(e.GetValue()); return nil }),
		cqrs.NewEventHandler("durations", func(_ context.Context, e *durationpb.Duration) error {
			got.add(e.AsDuration().String())
			return nil
		}),
	))
	run(t, r)
	bus, err := cqrs.NewEventBusWithConfig(p.publisher(t), cqrsx.EventBusConfig(marshaler, nil))
	require.NoError(t, err)
	require.NoError(t, bus.Publish(t.Context(), wrapperspb.String("a")))
	require.NoError(t, bus.Publish(t.Context(), &durationpb.Duration{Seconds: 1}))
	require.ElementsMatch(t, []string{"a", "1s"}, got.await(t, 2))
}

func TestCQRSX_NeedsAManager(t *testing.T) {
	r := newRouter(t)
	commands, err := cqrs.NewCommandProcessorWithConfig(r, cqrsx.CommandProcessorConfig(buffstreams.SubscriberConfig{}, nil, nil))
	require.NoError(t, err)
	require.ErrorIs(t, commands.AddHandlers(cqrs.NewCommandHandler("place", func(context.Context, *placeOrder) error { return nil })),
		cqrsx.ErrNoManager)
	_, err = cqrsx.NewRequester[sum](cqrsx.RequesterConfig{}, nil)
	require.ErrorIs(t, err, cqrsx.ErrNoManager)
	_, err = cqrsx.NewReplier[sum](cqrsx.ReplierConfig{}, nil)
	require.ErrorIs(t, err, cqrsx.ErrNoManager)
}
