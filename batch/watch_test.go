package batch_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/batch"
)

// withContexts gives each message a context of its own, which ends with its ack or nack, as subscribers do.
func withContexts(s *source, n int) (giveUp []context.CancelFunc) {
	for i := range n {
		m := message.NewMessage(fmt.Sprint(i), fmt.Append(nil, i))
		ctx, cancel := context.WithCancel(context.Background())
		m.SetContext(ctx)
		go func() { // Ends when the message is settled.
			select {
			case <-m.Acked():
			case <-m.Nacked():
			}
			cancel()
		}()
		s.all = append(s.all, m)
		s.messages <- m
		giveUp = append(giveUp, cancel)
	}
	return giveUp
}

// A handler that settles its messages one by one goes on to the last, and hears of the first that is given up.
func TestRun_AcksOfTheHandlerEndNothing(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(0)
		withContexts(s, 6)
		close(s.messages)
		require.NoError(t, batch.Run(t.Context(), s.messages, func(ctx context.Context, msgs []*message.Message) error {
			for i, m := range msgs {
				if i%2 == 0 {
					m.Ack()
				} else {
					m.Nack()
				}
				time.Sleep(time.Second) // of the bubble
				require.NoError(t, ctx.Err())
			}
			return nil
		}, batch.Config{}))
		require.Equal(t, "ananan", s.outcomes())
	})
}

func TestRun_HearsOfTheFirstThatIsGivenUp(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(0)
		giveUp := withContexts(s, 4)
		close(s.messages)
		calls := 0
		require.NoError(t, batch.Run(t.Context(), s.messages, func(ctx context.Context, msgs []*message.Message) error {
			if calls++; calls > 1 {
				return nil
			}
			msgs[0].Ack()
			time.Sleep(time.Second)
			clear(msgs) // it is the handler's
			giveUp[1]()
			<-ctx.Done()
			return ctx.Err()
		}, batch.Config{}))
		require.Equal(t, "anaa", s.outcomes())
	})
}

// What is acked after the handler has returned, and before it would be handed again, is not handed again.
func TestRun_SettledLater(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(2).ended()
		r := &recorder{do: func(call int, msgs []*message.Message) error {
			if call > 1 {
				return nil
			}
			late := msgs[0]
			time.AfterFunc(batch.DefaultSleep/2, func() { late.Ack() })
			return errors.New("wanted")
		}}
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{}))
		require.Equal(t, []string{"0 1", "1"}, r.batches)
	})
}

// The context of a batch ends with it: what a handler leaves to it ends then.
func TestRun_ContextOfABatchEndsWithIt(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(2).ended()
		var seen []context.Context
		require.NoError(t, batch.Run(t.Context(), s.messages, func(ctx context.Context, _ []*message.Message) error {
			require.NoError(t, ctx.Err())
			seen = append(seen, ctx)
			return nil
		}, batch.Config{Size: 1}))
		require.Len(t, seen, 2)
		for _, ctx := range seen {
			require.ErrorIs(t, ctx.Err(), context.Canceled)
		}
	})
}
