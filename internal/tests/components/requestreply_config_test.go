package components

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/requestreply"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cqrsx"
)

// A reply that this process cannot send any more, as it closes, has its command handled elsewhere; one that no process can send does not.
func TestReplier_ThatClosesLeavesTheCommand(t *testing.T) {
	command := func(replyTo, operation string) requestreply.BackendOnCommandProcessedParams[sum] {
		m := newMessage("")
		m.Metadata.Set(cqrsx.ReplyToKey, replyTo)
		m.Metadata.Set(requestreply.OperationIDMetadataKey, operation)
		return requestreply.BackendOnCommandProcessedParams[sum]{Command: &add{}, CommandMessage: m}
	}
	for name, c := range map[string]struct {
		end  func(*cqrsx.Replier[sum], *buffstreams.Manager)
		want error
	}{
		"replier": {func(p *cqrsx.Replier[sum], _ *buffstreams.Manager) { _ = p.Close() }, buffstreams.ErrPublisherClosed},
		"manager": {func(_ *cqrsx.Replier[sum], m *buffstreams.Manager) { _ = m.Close() }, buffstreams.ErrManagerClosed},
	} {
		m := newManager(t, buffstreams.ManagerConfig{})
		p, err := cqrsx.NewReplier[sum](cqrsx.ReplierConfig{Manager: m}, nil)
		require.NoError(t, err)
		require.NoError(t, p.OnCommandProcessed(t.Context(), command("no address", "1")), name)
		for _, other := range []requestreply.BackendOnCommandProcessedParams[sum]{command("", "1"), command("127.0.0.1:1", "")} {
			require.NoError(t, p.OnCommandProcessed(t.Context(), other), name)
			other.HandleErr = errWanted
			require.ErrorIs(t, p.OnCommandProcessed(t.Context(), other), errWanted, "it comes again")
		}
		c.end(p, m)
		require.ErrorIs(t, p.OnCommandProcessed(t.Context(), command("127.0.0.1:1", "1")), c.want, name)
		require.NoError(t, p.Close())
	}
}

// A Requester's bus is the user's where that is one, and else the usual one with the user's OnSend, which sees where replies go.
func TestRequester_BusOfTheUser(t *testing.T) {
	p := newPair(t)
	replying(t, p, cqrsx.ReplierConfig{}, adds)
	for name, own := range map[string]func(cfg *cqrs.CommandBusConfig){
		"own":   func(cfg *cqrs.CommandBusConfig) { *cfg = cqrsx.CommandBusConfig(nil, nil) },
		"usual": func(*cqrs.CommandBusConfig) {},
	} {
		var topics, replyTo atomic.Value
		q := p.requester(t, func(c *cqrsx.RequesterConfig) {
			own(&c.Bus)
			if topic := c.Bus.GeneratePublishTopic; topic != nil {
				c.Bus.GeneratePublishTopic = func(params cqrs.CommandBusGeneratePublishTopicParams) (string, error) {
					got, err := topic(params)
					topics.Store(got)
					return got, err
				}
			}
			c.Bus.OnSend = func(params cqrs.CommandBusOnSendParams) error {
				replyTo.Store(params.Message.Metadata.Get(cqrsx.ReplyToKey))
				return nil
			}
		})
		got, err := q.Ask(t.Context(), &add{1, 2})
		require.NoError(t, err, name)
		require.Equal(t, sum{3}, got, name)
		require.Equal(t, q.Address(), replyTo.Load(), name)
		require.Equal(t, name == "own", topics.Load() == "commands.add", name)
	}
	for name, half := range map[string]cqrs.CommandBusConfig{
		"no topic":     {Marshaler: cqrsx.JSON},
		"no marshaler": {GeneratePublishTopic: cqrsx.CommandBusConfig(nil, nil).GeneratePublishTopic},
	} {
		_, err := cqrsx.NewRequester[sum](cqrsx.RequesterConfig{Manager: p.sends, Publisher: p.publisher(t), Bus: half}, nil)
		require.Error(t, err, name)
	}
}

// badReplies cannot read replies.
type badReplies struct {
	requestreply.BackendPubsubJSONMarshaler[sum]
}

func (badReplies) UnmarshalReply(*message.Message) (requestreply.Reply[sum], error) {
	return requestreply.Reply[sum]{}, errWanted
}

// What came in place of a reply is told as what it is: that none came in time, that it cannot be read, or that the handler has failed,
// with its result.
func TestRequester_SaysWhatCameInstead(t *testing.T) {
	p, late := newPair(t), make(chan struct{})
	replying(t, p, cqrsx.ReplierConfig{}, func(ctx context.Context, c *add) (sum, error) {
		switch c.A {
		case 1:
			<-late
		case 2:
			return sum{7}, errWanted
		}
		return adds(ctx, c)
	})
	defer close(late)
	reading, err := cqrsx.NewRequester[sum](cqrsx.RequesterConfig{Manager: p.sends, Publisher: p.publisher(t), Timeout: patience}, badReplies{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = reading.Close() })
	_, err = reading.Ask(t.Context(), &add{0, 0})
	var unread requestreply.ReplyUnmarshalError
	require.ErrorAs(t, err, &unread)
	require.NotErrorAs(t, err, new(requestreply.CommandHandlerError))

	got, err := p.requester(t, nil).Ask(t.Context(), &add{2, 0})
	require.ErrorAs(t, err, new(requestreply.CommandHandlerError))
	require.Equal(t, sum{7}, got)

	began := time.Now()
	_, err = p.requester(t, func(c *cqrsx.RequesterConfig) { c.Timeout = 50 * time.Millisecond }).Ask(t.Context(), &add{1, 0})
	require.ErrorAs(t, err, new(requestreply.ReplyTimeoutError))
	require.NotErrorAs(t, err, new(requestreply.CommandHandlerError))
	require.Less(t, time.Since(began), patience/2, "its own time-out, not the usual one")
}
