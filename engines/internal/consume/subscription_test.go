package consume

import (
	"bytes"
	"context"
	"regexp"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// memory is a Source that has some messages, and counts what is settled and returned.
type memory struct {
	driver.Source
	messages          []*message.Message
	next              int
	settled, returned atomic.Int64
}

func (m *memory) Fetch(ctx context.Context, maximum int) (deliveries []driver.Delivery, err error) {
	for ; m.next < len(m.messages) && len(deliveries) < maximum; m.next++ {
		deliveries = append(deliveries, driver.Delivery{Message: m.messages[m.next], ID: strconv.Itoa(m.next)})
	}
	if len(deliveries) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return deliveries, nil
}

func (m *memory) Settle(_ context.Context, deliveries []driver.Delivery) error {
	m.settled.Add(int64(len(deliveries)))
	return nil
}

func (*memory) Extend(context.Context, []driver.Delivery) error { return nil }

func (m *memory) Return(_ context.Context, deliveries []driver.Delivery) error {
	m.returned.Add(int64(len(deliveries)))
	return nil
}

func (*memory) Close() error { return nil }

// begin begins a subscription to n messages, in the caller's bubble.
func begin(t *testing.T, n int, unchanged bool, settings driver.Settings) (*subscription, *memory, context.CancelFunc) {
	t.Helper()
	source := &memory{}
	for i := range n {
		source.messages = append(source.messages, message.NewMessage(strconv.Itoa(i), []byte("as it arrived")))
	}
	settings.RedeliverAfter, settings.CloseTimeout = driver.DefaultRedeliverAfter, time.Second
	cfg := &Config{Settings: settings, Logger: watermill.NopLogger{}, Explain: func(err error) error { return err }}
	sub := newSubscription(cfg, "topic", source)
	sub.unchanged = unchanged
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with ctx, and end waits
		defer close(done)
		sub.run(ctx, nil)
	}()
	return sub, source, func() { cancel(); <-done }
}

// bubble is the number of goroutines in the caller's bubble.
func bubble() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, regexp.MustCompile(`synctest bubble \d+\]`).Find(stacks)) // the caller's is the first
}

func receive(s *subscription, n int) (messages []*message.Message) {
	for range n {
		messages = append(messages, <-s.out)
	}
	return messages
}

// Messages that wait for their answer together, as those of a bridge do, cost no goroutine each, and are settled when they are acked.
func TestAnswers_InOrderNeedNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		sub, source, end := begin(t, n, false, driver.Settings{MaxInFlight: n})
		first := receive(sub, 1)
		synctest.Wait()
		goroutines := bubble()
		held := append(first, receive(sub, n-1)...)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, goroutines, bubble())
		began := time.Now()
		for _, msg := range held {
			msg.Ack()
		}
		synctest.Wait()
		require.EqualValues(t, n, source.settled.Load())
		require.Zero(t, time.Since(began))
		end()
	})
}

// A message that is not answered holds up no acks of younger ones, nor what comes in their place.
func TestAnswers_OvertakenMessagesHoldUpNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sub, source, end := begin(t, 10, false, driver.Settings{MaxInFlight: 4})
		held := receive(sub, 4)
		time.Sleep(time.Second)
		held[1].Ack()
		time.Sleep(longestLook)
		synctest.Wait()
		require.EqualValues(t, 1, source.settled.Load())
		held[2].Ack()
		held[3].Ack()
		began := time.Now()
		for range 6 { // one after the other, beside the one that is held
			receive(sub, 1)[0].Ack()
		}
		require.Zero(t, time.Since(began), "nothing waits for a look")
		held[0].Ack()
		synctest.Wait()
		require.EqualValues(t, 10, source.settled.Load())
		end()
	})
}

// What is answered at the last moment is settled, and the rest is given back; a nack with the wait behind it too.
func TestAnswers_AtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sub, source, end := begin(t, 4, false, driver.Settings{MaxInFlight: 4, NackDelay: time.Hour, NackDelayMax: time.Hour})
		held := receive(sub, 4)
		held[1].Nack()
		held[3].Ack()
		time.AfterFunc(500*time.Millisecond, func() { held[2].Ack() })
		end()
		require.Error(t, held[0].Context().Err())
		require.EqualValues(t, 2, source.settled.Load())
		require.EqualValues(t, 2, source.returned.Load())
	})
}

// What a handler writes into a message is not in its redelivery. A caller that promises to write nothing gets no copies.
func TestCopies_UnlessNothingIsChanged(t *testing.T) {
	for _, unchanged := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			sub, source, end := begin(t, 1, unchanged, driver.Settings{MaxInFlight: 1})
			msg := receive(sub, 1)[0]
			require.Equal(t, unchanged, msg == source.messages[0])
			if !unchanged {
				clear(msg.Payload)
				msg.Metadata.Set("k", "v")
			}
			msg.Nack()
			again := receive(sub, 1)[0]
			require.Equal(t, "as it arrived", string(again.Payload))
			require.Empty(t, again.Metadata)
			require.Equal(t, "0", driver.ID(again))
			again.Ack()
			synctest.Wait()
			require.EqualValues(t, 1, source.settled.Load())
			end()
		})
	}
}
