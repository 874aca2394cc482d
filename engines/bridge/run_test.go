package bridge

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// holdFirst has the first call wait with the message "a", so that what is given next is there together for the next call.
func holdFirst(x *script, rest ...string) (release func(error)) {
	answer, release := hold()
	then := x.to.answer
	x.to.answer = func(ctx context.Context, call int, names []string) error {
		if call == 0 {
			return answer(ctx, call, names)
		}
		if then == nil {
			return nil
		}
		return then(ctx, call, names)
	}
	x.from.give("a")
	synctest.Wait()
	x.from.give(rest...)
	synctest.Wait()
	return release
}

func TestRun_AcksWhatIsConfirmed(t *testing.T) {
	scripted(t, nil, func(x *script) {
		release := holdFirst(x, "b", "c")
		x.requireAnswers("...")
		require.Equal(t, Stats{Received: 3, InHand: 3}, x.Stats())
		release(nil)
		x.requireAnswers("+++")
		require.Equal(t, Stats{Received: 3, Forwarded: 3, Bytes: 15}, x.Stats())
		require.Equal(t, "a bc", x.to.seenCalls())
	})
}

// A call carries up to Batch messages and BatchBytes, to the last one.
func TestRun_BoundsACall(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"messages":           {func(c *Config) { c.Batch = 3 }, "a bcd efg h"},
		"bytes":              {func(c *Config) { c.BatchBytes = 15 }, "a bcd efg h"}, // of 5 each
		"bytes in between":   {func(c *Config) { c.BatchBytes = 14 }, "a bc de fg h"},
		"one goes in always": {func(c *Config) { c.BatchBytes = 1 }, "a b c d e f g h"},
		"both":               {func(c *Config) { c.Batch, c.BatchBytes = 4, 10 }, "a bc de fg h"},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(_ *script, c *Config) { test.change(c) }, func(x *script) {
				holdFirst(x, "b", "c", "d", "e", "f", "g", "h")(nil)
				require.Equal(t, test.want, x.to.seenCalls())
				x.requireAnswers("++++++++")
			})
		})
	}
}

// Messages with one key are in one call at a time, in their order; without a Key all are.
func TestRun_KeepsTheOrderOfKeys(t *testing.T) {
	for _, key := range []string{"key", ""} {
		running, most := map[string]bool{}, 0
		var mu sync.Mutex
		scripted(t, func(x *script, c *Config) {
			c.Key, c.Lanes, c.Batch, c.LookBack = key, 3, 2, -1
			x.to.answer = func(_ context.Context, call int, names []string) error {
				mu.Lock()
				defer mu.Unlock()
				keys := map[string]bool{}
				for _, name := range names {
					keys[name[:1]] = true
				}
				for k := range keys {
					require.False(t, running[k], "two calls have messages of %s", k)
					running[k] = true
				}
				most = max(most, len(running))
				mu.Unlock()
				time.Sleep(time.Duration(1+call%3) * time.Millisecond)
				mu.Lock()
				for k := range keys {
					delete(running, k)
				}
				if call%5 == 2 {
					return errors.New("not now")
				}
				return nil
			}
		}, func(x *script) {
			for n := range 90 {
				k := string(rune('A' + n%30))
				x.from.give(k + string(rune('0'+n/30)) + ":" + k)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			require.Equal(t, Stats{Received: 90, Forwarded: 90, Bytes: x.Stats().Bytes, Retries: x.Stats().Retries}, x.Stats())
			stored := map[string]string{}
			for _, id := range x.to.stored {
				name := strings.TrimPrefix(id, "uuid/")
				stored[name[:1]] += name[1:]
			}
			require.Len(t, stored, 30)
			for k, numbers := range stored {
				require.Equal(t, "012", numbers, k)
			}
			if key == "" {
				require.LessOrEqual(t, most, 2, "one call at a time, of two messages")
			} else {
				require.Greater(t, most, 2, "lanes work side by side")
			}
		})
	}
}

// What fails is published again after a pause that grows, before what came after it.
func TestRun_TriesAgainInOrder(t *testing.T) {
	var at []time.Duration
	began := time.Time{}
	scripted(t, func(x *script, c *Config) {
		c.LookBack = -1
		x.to.answer = func(_ context.Context, call int, _ []string) error {
			at = append(at, time.Since(began))
			if call < 9 {
				return errors.New("not now")
			}
			return nil
		}
	}, func(x *script) {
		began = time.Now()
		x.from.give("a")
		synctest.Wait()
		x.from.give("b")
		require.ErrorContains(t, x.Ready(t.Context()), "not now")
		time.Sleep(time.Minute)
		x.requireAnswers("++")
		require.Equal(t, "a a a a a a a a a a b", x.to.seenCalls())
		require.EqualValues(t, 9, x.Stats().Retries)
		require.NoError(t, x.Ready(t.Context()))
	})
	var want []time.Duration
	for _, ms := range []int{0, 50, 150, 350, 750, 1550, 3150, 5150, 7150, 9150, 9150} {
		want = append(want, time.Duration(ms)*time.Millisecond)
	}
	require.Equal(t, want, at)
}

// A message whose confirm was lost is found at the destination, once that answers.
func TestRun_LooksForWhatWasNotConfirmed(t *testing.T) {
	scripted(t, func(x *script, c *Config) {
		c.LookBack, c.Topics[0].To = 7, "sold"
		x.to.answer = func(_ context.Context, call int, _ []string) error {
			if call == 1 {
				return driver.NewPublishError([]error{errConfirmLost, errors.New("not now"), errConfirmLost})
			}
			return nil
		}
	}, func(x *script) {
		release := holdFirst(x, "b", "c", "d")
		x.to.mu.Lock()
		x.to.lookErr, x.to.lookFails = errors.New("no leader"), 8
		x.to.mu.Unlock()
		release(nil)
		x.requireAnswers("+...")
		time.Sleep(70 * time.Millisecond)
		synctest.Wait()
		require.ErrorContains(t, x.Ready(t.Context()), "no leader")
		time.Sleep(9 * time.Second) // 50 ms, and looks after 50, 150, 350, 750, 1550, 3150, 5150 and 7150 ms
		x.requireAnswers("++++")
		require.Equal(t, "a bcd c", x.to.seenCalls())
		require.Len(t, x.to.asked, 1+9)
		require.Equal(t, map[string]bool{"Declare sold": true, "Recent sold": true, "Publish sold": true}, x.to.topics)
		s := x.Stats()
		require.Equal(t, Stats{Received: 4, Forwarded: 4, Bytes: 20, Retries: 1}, s)
	})
}

// Each message of a call has its own end: stored, a dead letter, or another try.
func TestRun_EachMessageHasItsOwnEnd(t *testing.T) {
	var refusals []string
	scripted(t, func(x *script, c *Config) {
		c.DeadLetterTopic, c.LookBack, c.Topics[0].To = "dead", -1, "sold"
		c.Hooks.OnRefused = func(topic Topic, m *message.Message, err error) {
			refusals = append(refusals, topic.From+" "+string(m.Payload)+" "+err.Error())
			panic("a hook of the user's")
		}
		x.to.answer = func(_ context.Context, call int, _ []string) error {
			if call == 1 {
				return each("srfrs")
			}
			return nil
		}
		x.from.refusing.Store(2)
	}, func(x *script) {
		holdFirst(x, "b", "c:k", "d", "e", "f")(nil)
		x.requireAnswers("++...+") // c waits for room among the dead letters, and holds up none
		time.Sleep(time.Minute)
		x.requireAnswers("++++++")
		require.Equal(t, "a bcdef d", x.to.seenCalls())
		require.Equal(t, Stats{Received: 6, Forwarded: 4, Bytes: 20, Refused: 2, Retries: 1}, x.Stats())
		require.Len(t, refusals, 2)
		require.Contains(t, refusals[0], "orders c engines: to refuses")
		require.Len(t, x.from.letters, 2)
		letter := x.from.letters[0]
		require.Equal(t, "c", letter.UUID)
		require.Equal(t, "c", string(letter.Payload))
		require.Equal(t, "k", letter.Metadata.Get("key"))
		require.Equal(t, "dead", letter.Metadata.Get("published at"))
		require.Equal(t, "orders", letter.Metadata.Get(middleware.PoisonedTopicKey))
		require.Contains(t, letter.Metadata.Get(middleware.ReasonForPoisonedKey), "no such colour")
		require.Empty(t, x.from.given[2].Metadata.Get(middleware.PoisonedTopicKey), "the source's message is not changed")
	})
}

// A call that is refused as a whole is divided: no message behind one that is not settled comes first.
func TestRun_DividesARefusedCall(t *testing.T) {
	for name, test := range map[string]struct {
		letters, calls, answers string
		c                       error // of c alone, the first time
		ended                   bool
	}{
		"a dead letter":             {"dead", "a bcd b c d", "++++", refused(), false},
		"no place for dead letters": {"", "a bcd b c", "++--", refused(), true},
		"c fails for now":           {"dead", "a bcd b c cd", "++++", errors.New("not now"), false},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(x *script, c *Config) {
				c.DeadLetterTopic, c.LookBack = test.letters, -1
				x.to.answer = func(_ context.Context, call int, names []string) error {
					switch {
					case call == 1:
						return refused()
					case call == 3:
						return test.c
					}
					return nil
				}
			}, func(x *script) {
				holdFirst(x, "b", "c", "d")(nil)
				time.Sleep(time.Minute)
				x.requireAnswers(test.answers)
				require.Equal(t, test.calls, x.to.seenCalls())
				if test.ended {
					require.Zero(t, x.Stats().Retries)
				}
				select {
				case err := <-x.ran:
					require.True(t, test.ended, err)
					require.ErrorContains(t, err, `message "c" stays at the source`)
					require.ErrorIs(t, err, errors.ErrUnsupported)
					require.ErrorIs(t, x.Ready(t.Context()), errors.ErrUnsupported)
				default:
					require.False(t, test.ended)
				}
			})
		})
	}
}

// MaxMessageSize is the largest that goes; what is before a larger message goes too, and what is behind it never first.
func TestRun_MaxMessageSize(t *testing.T) {
	for letters, calls := range map[string]string{"dead": "a bcc d", "": "a bcc"} {
		scripted(t, func(_ *script, c *Config) { c.DeadLetterTopic, c.MaxMessageSize = letters, 7 }, func(x *script) {
			holdFirst(x, "b", "cc", "ddd", "d", "eee")(nil) // of 5, 7, 9, 5 and 9 bytes
			require.Equal(t, calls, x.to.seenCalls())
			if letters != "" {
				x.requireAnswers("++++++")
				require.ErrorContains(t, x.lastReason(), "9 bytes, the bridge's limit is 7")
				return
			}
			x.requireAnswers("+++---")
			require.EqualValues(t, 1, x.Stats().Refused, "what is behind it was not looked at")
			require.ErrorIs(t, <-x.ran, driver.ErrTooLarge)
		})
	}
}

// lastReason is why the last dead letter is one.
func (x *script) lastReason() error {
	return errors.New(x.from.letters[len(x.from.letters)-1].Metadata.Get(middleware.ReasonForPoisonedKey))
}

// At its end a bridge takes nothing new, and delivers what it has for DrainTimeout.
func TestRun_DrainsAtItsEnd(t *testing.T) {
	for _, answered := range []bool{true, false} {
		scripted(t, func(_ *script, c *Config) { c.DrainTimeout, c.Batch = 10*time.Second, 1 }, func(x *script) {
			release := holdFirst(x, "b", "c")
			began := time.Now()
			x.end()
			time.Sleep(9 * time.Second)
			x.requireAnswers("...")
			if answered {
				release(nil)
			}
			require.NoError(t, <-x.ran)
			if answered {
				x.requireAnswers("+++")
				require.Equal(t, 9*time.Second, time.Since(began))
			} else {
				x.requireAnswers("---")
				require.Equal(t, 10*time.Second, time.Since(began))
			}
			require.Zero(t, x.Stats().InHand)
			require.Equal(t, []int{1, 1}, []int{x.from.closed, x.to.closed})
		})
	}
}

// A dead letter that cannot be published stays at the source when the bridge ends.
func TestRun_DeadLetterThatFailsStaysAtTheSource(t *testing.T) {
	scripted(t, func(x *script, c *Config) {
		c.DeadLetterTopic = "dead"
		x.to.answer = func(context.Context, int, []string) error { return refused() }
		x.from.refusing.Store(1 << 30)
	}, func(x *script) {
		x.from.give("a")
		time.Sleep(10*time.Second + time.Millisecond)
		x.requireAnswers(".")
		require.EqualValues(t, 1<<30-11, x.from.refusing.Load(), "a try each second")
		require.Equal(t, "a", x.to.seenCalls(), "alone it was already")
		x.end()
		require.NoError(t, <-x.ran)
		x.requireAnswers("-")
	})
}

// What the destination has already is acked, and not published: what it had at the start, and what was forwarded.
func TestRun_SkipsWhatIsThere(t *testing.T) {
	scripted(t, func(x *script, c *Config) {
		c.LookBack = 3
		for _, name := range []string{"y", "z"} {
			x.to.stored = append(x.to.stored, "uuid/"+name)
		}
	}, func(x *script) {
		for _, name := range []string{"z", "a", "a", "b", "y", "c", "b"} {
			x.from.give(name)
			synctest.Wait()
		}
		x.requireAnswers("+++++++")
		require.Equal(t, "a b c", x.to.seenCalls())
		require.Equal(t, Stats{Received: 7, Forwarded: 3, Bytes: 15, Skipped: 4}, x.Stats())
		for _, name := range []string{"d", "e", "y", "c"} { // y is the oldest of five, and e the sixth
			x.from.give(name)
			synctest.Wait()
		}
		require.Equal(t, "a b c d e y", x.to.seenCalls())
	})
}
