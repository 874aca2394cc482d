package batch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/buffstreams/watermill-buffstreams/batch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errWanted = errors.New("wanted")

// source is a subscription by hand.
type source struct {
	messages chan *message.Message
	all      []*message.Message
}

func newSource(n int) *source {
	s := &source{messages: make(chan *message.Message, 1000)}
	for i := range n {
		s.add(fmt.Sprint(i))
	}
	return s
}

func (s *source) add(payload string) *message.Message {
	m := message.NewMessage(watermill.NewUUID(), []byte(payload))
	s.all = append(s.all, m)
	s.messages <- m
	return m
}

// ended is the source when nothing more will come.
func (s *source) ended() *source {
	close(s.messages)
	return s
}

// outcomes says of each message whether it is acked (a), nacked (n) or neither (-).
func (s *source) outcomes() string {
	var out strings.Builder
	for _, m := range s.all {
		select {
		case <-m.Acked():
			out.WriteByte('a')
		case <-m.Nacked():
			out.WriteByte('n')
		default:
			out.WriteByte('-')
		}
	}
	return out.String()
}

// recorder is a handler that keeps what it got, and then does what do says.
type recorder struct {
	batches []string
	do      func(call int, msgs []*message.Message) error // nil: nothing
}

func (r *recorder) handle(_ context.Context, msgs []*message.Message) error {
	r.batches = append(r.batches, payloads(msgs))
	if r.do == nil {
		return nil
	}
	return r.do(len(r.batches), msgs)
}

func payloads(msgs []*message.Message) string {
	var all []string
	for _, m := range msgs {
		all = append(all, string(m.Payload))
	}
	return strings.Join(all, " ")
}

// within runs f in a bubble, where time passes when nothing else can happen.
func within(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// A handler that panics fails its batch. The messages come again, one, then two, and so on.
func TestRun_PanicIsContained(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(4).ended()
		r := &recorder{do: func(call int, _ []*message.Message) error {
			if call == 1 {
				panic("oops")
			}
			return nil
		}}
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{}))
		require.Equal(t, []string{"0 1 2 3", "0", "1 2", "3"}, r.batches)
		require.Equal(t, "aaaa", s.outcomes())
	})
}

// What came later is handled later, whatever fails how often.
func TestRun_FailureKeepsOrder(t *testing.T) {
	for name, fail := range map[string]func(msgs []*message.Message, at int) error{
		"error":           func([]*message.Message, int) error { return errWanted },
		"panic":           func([]*message.Message, int) error { panic("oops") },
		"from":            func(_ []*message.Message, at int) error { return &batch.FromError{Index: at, Err: errWanted} },
		"from, out of it": func(msgs []*message.Message, _ int) error { return &batch.FromError{Index: len(msgs), Err: errWanted} },
		"from, negative":  func([]*message.Message, int) error { return &batch.FromError{Index: -1, Err: errWanted} },
		"joined with another": func(msgs []*message.Message, _ int) error {
			return errors.Join(make(batch.Errors, len(msgs)), errors.New("the commit failed"))
		},
		"errors, too few":  func([]*message.Message, int) error { return batch.Errors{} },
		"errors, too many": func(msgs []*message.Message, _ int) error { return make(batch.Errors, len(msgs)+1) },
		"errors from one on": func(msgs []*message.Message, at int) error {
			each := make(batch.Errors, len(msgs))
			for i := at; i < len(msgs); i++ {
				each[i] = errWanted
			}
			return fmt.Errorf("wrapped: %w", each)
		},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(t *testing.T) {
				s := newSource(20)
				left := 5
				var handled []string
				handle := func(_ context.Context, msgs []*message.Message) error {
					for i, m := range msgs {
						if string(m.Payload) != "3" || left == 0 {
							continue
						}
						left--
						err := guarded(func() error { return fail(msgs, i) })
						if done := strings.Contains(name, "from") && !strings.Contains(name, "out") && !strings.Contains(name, "neg"); done {
							handled = append(handled, strings.Fields(payloads(msgs[:i]))...)
						}
						return err
					}
					handled = append(handled, strings.Fields(payloads(msgs))...)
					return nil
				}
				go func() { // Ends when the messages have come.
					time.Sleep(time.Second) // of the bubble
					for i := 20; i < 30; i++ {
						s.add(fmt.Sprint(i))
					}
					close(s.messages)
				}()
				require.NoError(t, batch.Run(t.Context(), s.messages, handle, batch.Config{Size: 8}))
				require.Equal(t, numbers(30), handled)
				require.Equal(t, strings.Repeat("a", 30), s.outcomes())
				require.Zero(t, left)
			})
		})
	}
}

// guarded lets a panic through as what it is, after the bookkeeping of the test.
func guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	return f()
}

func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// Of rows that are independent, those that failed come again and the others are done.
func TestRun_EachIsDecided(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(5).ended()
		r := &recorder{do: func(call int, msgs []*message.Message) error {
			if call > 1 {
				return nil
			}
			return batch.Errors{nil, errWanted, nil, errWanted, nil}
		}}
		began := time.Now()
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{}))
		require.Equal(t, []string{"0 1 2 3 4", "1", "3"}, r.batches)
		require.Equal(t, "aaaaa", s.outcomes())
		require.Equal(t, batch.DefaultSleep, time.Since(began), "it waits before it tries again")
	})
}

// A message that the handler acks or nacks itself is decided, whatever the handler returns then.
func TestRun_HandlerDecidesItself(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(4).ended()
		r := &recorder{do: func(call int, msgs []*message.Message) error {
			if call > 1 {
				return nil
			}
			msgs[0].Ack()
			msgs[1].Nack()
			return errWanted
		}}
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{}))
		require.Equal(t, []string{"0 1 2 3", "2", "3"}, r.batches)
		require.Equal(t, "anaa", s.outcomes())
	})
}

// One bad message ends up alone, and fails for good alone: those beside it lose no attempt.
func TestRun_OneBadMessageFailsAlone(t *testing.T) {
	for name, failed := range map[string]func(ctx context.Context, m *message.Message, err error) error{
		"is put away": func(context.Context, *message.Message, error) error { return nil },
		"is nacked":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func(t *testing.T) {
				s := newSource(20).ended()
				bad := 0
				var handled []string
				handle := func(_ context.Context, msgs []*message.Message) error {
					if strings.Contains(" "+payloads(msgs)+" ", " 7 ") {
						if len(msgs) == 1 {
							bad++
						}
						return errWanted
					}
					handled = append(handled, strings.Fields(payloads(msgs))...)
					return nil
				}
				require.NoError(t, batch.Run(t.Context(), s.messages, handle, batch.Config{MaxAttempts: 3, Failed: failed}))
				require.Equal(t, 3, bad)
				want := numbers(20)
				require.Equal(t, append(want[:7:7], want[8:]...), handled)
				outcome := "a"
				if failed == nil {
					outcome = "n"
				}
				require.Equal(t, strings.Repeat("a", 7)+outcome+strings.Repeat("a", 12), s.outcomes())
			})
		})
	}
}

// While what puts messages away fails, or panics, nothing is lost and nothing passes by.
func TestRun_FailedThatFails(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(2).ended()
		calls := 0
		r := &recorder{do: func(_ int, msgs []*message.Message) error {
			if string(msgs[0].Payload) == "0" {
				return errWanted
			}
			return nil
		}}
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{Size: 1, MaxAttempts: 1,
			Failed: func(_ context.Context, m *message.Message, err error) error {
				require.ErrorIs(t, err, errWanted)
				switch calls++; calls {
				case 1:
					return errWanted
				case 2:
					panic("oops")
				}
				return nil
			}}))
		require.Equal(t, []string{"0", "0", "0", "1"}, r.batches)
		require.Equal(t, "aa", s.outcomes())
	})
}

// The context of Run ends a handler, and gives back what is not handled.
func TestRun_ContextEnds(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := batch.Run(ctx, s.messages, func(ctx context.Context, msgs []*message.Message) error {
			msgs[0].Ack()
			<-ctx.Done()
			return ctx.Err()
		}, batch.Config{Size: 4, MaxAttempts: 1})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, "annn------", s.outcomes(), "what was not taken is the subscriber's")
	})
}

// A handler that returns nil all the same has handled its messages.
func TestRun_ContextEndsAHandlerThatSucceeds(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(2)
		ctx, cancel := context.WithCancel(t.Context())
		err := batch.Run(ctx, s.messages, func(context.Context, []*message.Message) error { cancel(); return nil }, batch.Config{})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, "aa", s.outcomes())
	})
}

// It ends while it waits: for messages, for more of them, or to try again.
func TestRun_ContextEndsTheWaits(t *testing.T) {
	for name, n := range map[string]int{"for the first": 0, "for more": 1, "to try again": 2} {
		t.Run(name, func(t *testing.T) {
			within(t, func(t *testing.T) {
				s := newSource(n)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				err := batch.Run(ctx, s.messages, func(context.Context, []*message.Message) error { return errWanted },
					batch.Config{Size: 2, Wait: time.Hour, Sleep: time.Hour, SleepCap: time.Hour})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Second, time.Since(began))
				require.Equal(t, strings.Repeat("n", n), s.outcomes())
			})
		})
	}
}

// A subscription that closes ends its messages' contexts. The handler hears of it; what it did not handle is given up and
// not handled again here.
func TestRun_SubscriptionGivesUp(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(0)
		closing, giveUp := context.WithCancel(context.Background())
		for i := range 4 {
			m := message.NewMessage(watermill.NewUUID(), fmt.Append(nil, i))
			m.SetContext(closing)
			s.all = append(s.all, m)
			s.messages <- m
		}
		calls := 0
		go func() { time.Sleep(time.Second); giveUp(); time.Sleep(time.Second); close(s.messages) }()
		err := batch.Run(t.Context(), s.messages, func(ctx context.Context, _ []*message.Message) error {
			calls++
			<-ctx.Done()
			return ctx.Err()
		}, batch.Config{Size: 2})
		require.NoError(t, err)
		require.Equal(t, 1, calls)
		require.Equal(t, "nnnn", s.outcomes())
	})
}

// What a subscriber gave up while it waited to be tried again is not handled twice.
func TestRun_GivenUpWhileItWaits(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(0)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		m := message.NewMessage("x", []byte("given up"))
		m.SetContext(ctx)
		s.messages <- m
		r := &recorder{do: func(int, []*message.Message) error { return errWanted }}
		go func() { time.Sleep(2 * time.Second); close(s.messages) }()
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{Size: 1, Sleep: time.Hour, SleepCap: time.Hour}))
		require.Equal(t, []string{"given up"}, r.batches)
	})
}

// A batch is what has come: at once if it is full, after Wait if not.
func TestRun_Waits(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(5)
		var at []time.Duration
		began := time.Now()
		r := &recorder{do: func(int, []*message.Message) error { at = append(at, time.Since(began)); return nil }}
		go func() {
			time.Sleep(time.Second)
			s.add("5")
			time.Sleep(40 * time.Millisecond)
			s.add("6")
			time.Sleep(100 * time.Millisecond)
			close(s.messages)
		}()
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{Size: 4, Wait: 50 * time.Millisecond}))
		require.Equal(t, []string{"0 1 2 3", "4", "5 6"}, r.batches)
		require.Equal(t, []time.Duration{0, 50 * time.Millisecond, 1050 * time.Millisecond}, at)
	})
}

func TestRun_NoWait(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(3).ended()
		r := &recorder{}
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{Wait: batch.NoWait}))
		require.Equal(t, []string{"0 1 2"}, r.batches)
	})
}

// The waits between attempts double up to the cap, and begin anew with a success.
func TestRun_Sleeps(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(2).ended()
		var at []time.Duration
		last := time.Now()
		r := &recorder{do: func(call int, _ []*message.Message) error {
			at = append(at, time.Since(last))
			last = time.Now()
			if call <= 5 || call == 7 {
				return errWanted
			}
			return nil
		}}
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{Size: 1, Sleep: time.Second, SleepCap: 5 * time.Second}))
		require.Equal(t, []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second, 0, time.Second}, at)
	})
}

// A handler may change its slice, and fail then.
func TestRun_SliceIsTheHandlers(t *testing.T) {
	within(t, func(t *testing.T) {
		s := newSource(4).ended()
		var lengths []int
		require.NoError(t, batch.Run(t.Context(), s.messages, func(_ context.Context, msgs []*message.Message) error {
			lengths = append(lengths, len(msgs))
			clear(msgs)
			_ = append(msgs, nil)
			if len(lengths) == 1 {
				return errWanted
			}
			return nil
		}, batch.Config{Size: 2}))
		require.Equal(t, []int{2, 1, 2, 1}, lengths)
		require.Equal(t, "aaaa", s.outcomes())
	})
}
