package buffstreams

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

// begin adds n slow messages.
func begin(h *handling, n int) (all []*slow) {
	for range n {
		all = append(all, h.add(message.NewMessage("", nil)))
	}
	return all
}

// running is the number of messages whose time runs.
func running(all []*slow) (n int) {
	for _, s := range all {
		if s.timer != nil {
			n++
		}
	}
	return n
}

func TestHandling_TimeRunsForTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &handling{timeout: time.Second}
		all := begin(h, 3)
		time.Sleep(900 * time.Millisecond)
		require.False(t, isClosed(all[0].late))
		time.Sleep(200 * time.Millisecond)
		require.True(t, isClosed(all[0].late))
		require.Equal(t, 1, running(all))
		h.remove(all[0])
		require.Equal(t, 2, running(all))
		all[1].msg.Ack()
		h.remove(all[1])
		time.Sleep(900 * time.Millisecond)
		require.False(t, isClosed(all[2].late), "its time began with the end of the one before")
		h.remove(all[2])
		require.Empty(t, h.slow)
	})
}

func TestHandling_LearnsHowManyHandlersThereAre(t *testing.T) {
	h := &handling{timeout: time.Hour}
	all := begin(h, 4)
	all[0].msg.Ack()
	all[1].msg.Nack()
	h.remove(all[1]) // noticed in another order than it was answered in
	require.Equal(t, 1, running(all[2:])+running(all[:1]))
	h.remove(all[0])
	require.Equal(t, 1, running(all[2:]))
	all[3].msg.Ack()
	h.remove(all[3])
	all = append(all[2:3], begin(h, 3)...)
	require.Equal(t, 2, running(all), "two handlers were seen")
	h.answered() // a younger one, while all of these are open
	require.Equal(t, 4, running(all))
	for _, s := range all {
		h.remove(s)
	}
}

func TestHandling_DecoratorsHoldNoMoreThanSome(t *testing.T) {
	h := &handling{timeout: time.Hour}
	all := begin(h, 20)
	require.Equal(t, 20-maxHeld, running(all))
	for _, s := range all {
		h.remove(s)
	}
}

func TestHandling_WithoutALimitThereIsNothingToDo(t *testing.T) {
	h := &handling{}
	require.Nil(t, h.add(message.NewMessage("", nil)))
	h.answered()
}

// subscribed is a Subscriber that has a subscription already.
type subscribed struct{ *subscription }

func (s subscribed) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return s.out, nil
}
func (subscribed) Close() error { return nil }

// TestSubscriber_AckWaitBeginsWithTheHandler: decorators that hold messages until the handler is through with those before
// take nothing of the handler's time.
func TestSubscriber_AckWaitBeginsWithTheHandler(t *testing.T) {
	for decorators := range maxHeld {
		t.Run(fmt.Sprint(decorators), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const count, wait = 8, 400 * time.Millisecond
				sub, _, source := lateSubscription(t, count, SubscriberConfig{MaxInFlight: maxHeld, AckWaitTimeout: wait})
				var decorated message.Subscriber = subscribed{sub}
				for range decorators {
					var err error
					decorated, err = message.MessageTransformSubscriberDecorator(func(*message.Message) {})(decorated)
					require.NoError(t, err)
				}
				messages, err := decorated.Subscribe(t.Context(), "orders")
				require.NoError(t, err)
				for range count {
					msg := <-messages
					d, _ := DeliveryFromContext(msg.Context())
					require.Equal(t, 1, d.Attempt, "nothing is emitted again")
					time.Sleep(wait - time.Millisecond)
					msg.Ack()
				}
				synctest.Wait()
				require.EqualValues(t, count, source.settled.Load())
			})
		})
	}
}

// TestSubscriber_AckWaitIsSideBySide: of handlers that were seen to work side by side each has the same time.
func TestSubscriber_AckWaitIsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const handlers, wait = 8, 500 * time.Millisecond
		sub, _, source := lateSubscription(t, 2*handlers, SubscriberConfig{MaxInFlight: handlers, AckWaitTimeout: wait})
		first := hold(sub, handlers)
		time.Sleep(2 * slowAfter) // all have a watcher
		first[handlers-1].Ack()   // before all others
		synctest.Wait()
		for _, msg := range first[:handlers-1] {
			msg.Ack()
		}
		stuck := hold(sub, handlers)
		began := time.Now()
		for _, msg := range stuck {
			<-msg.Context().Done()
		}
		require.LessOrEqual(t, time.Since(began), wait+2*slowAfter, "a watcher comes first")
		for range handlers {
			(<-sub.out).Ack()
		}
		synctest.Wait()
		require.EqualValues(t, 2*handlers, source.settled.Load())
	})
}

// TestHandling_KeepsNothingOfWhatWasAnswered: a timer would keep each message for as long as AckWaitTimeout.
func TestHandling_KeepsNothingOfWhatWasAnswered(t *testing.T) {
	h := &handling{timeout: time.Hour}
	for _, s := range begin(h, 2) {
		s.msg.Ack()
		h.remove(s)
		require.False(t, s.timer.Stop(), "it is stopped")
	}
	require.Empty(t, h.slow)
}
