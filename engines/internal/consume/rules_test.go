package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// desk is a Source that a test hands messages to, and that notes what it is told.
type desk struct {
	there chan driver.Delivery

	mu     sync.Mutex
	told   []string      // what it was told, with the tokens of the messages; guarded by mu
	asked  []int         // of Fetch: how many; guarded by mu
	fails  int           // so many of the next calls fail; guarded by mu
	slow   time.Duration // of Settle; guarded by mu
	closed bool
}

func (d *desk) tell(what string, deliveries []driver.Delivery) error {
	d.mu.Lock()
	for _, one := range deliveries {
		what += " " + fmt.Sprint(one.Token)
	}
	d.told = append(d.told, what)
	slow := d.slow
	failed := d.fails > 0
	if failed {
		d.fails--
	}
	d.mu.Unlock()
	time.Sleep(slow)
	if failed {
		return errors.New("not now")
	}
	return nil
}

// said takes out what was told.
func (d *desk) said() string {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	said := strings.Join(d.told, ", ")
	d.told = nil
	return said
}

func (d *desk) Fetch(ctx context.Context, maximum int) (all []driver.Delivery, err error) {
	d.mu.Lock()
	d.asked = append(d.asked, maximum)
	failed := d.fails > 0
	if failed {
		d.fails--
	}
	d.mu.Unlock()
	if failed {
		return nil, errors.New("not now")
	}
	select {
	case one := <-d.there:
		all = append(all, one)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for len(all) < maximum {
		select {
		case one := <-d.there:
			all = append(all, one)
		default:
			return all, nil
		}
	}
	return all, nil
}

func (d *desk) Settle(_ context.Context, all []driver.Delivery) error { return d.tell("settle", all) }
func (d *desk) Extend(_ context.Context, all []driver.Delivery) error { return d.tell("extend", all) }
func (d *desk) Return(_ context.Context, all []driver.Delivery) error { return d.tell("return", all) }
func (d *desk) Close() error                                          { d.closed = true; return nil }

// put hands messages to the desk: "name:key" each; their token is their name and how often they were put.
func (d *desk) put(names ...string) {
	for _, name := range names {
		name, key, _ := strings.Cut(name, ":")
		id := strings.TrimRight(name, "'") // a' is a again
		m := message.NewMessage(id, nil)
		m.Metadata.Set("key", key)
		d.there <- driver.Delivery{Message: m, ID: id, Token: name}
	}
}

// letters is a Publisher that keeps what it gets, after some failures.
type letters struct {
	message.Publisher
	fails int
	got   []*message.Message
}

func (l *letters) Publish(topic string, messages ...*message.Message) error {
	if l.fails > 0 {
		l.fails--
		return errors.New("no room")
	}
	for _, m := range messages {
		m.Metadata.Set("published at", topic)
		l.got = append(l.got, m)
	}
	return nil
}

// ruled runs a test with a subscription at a desk, in a bubble, and ends it.
func ruled(t *testing.T, settings driver.Settings, test func(*testing.T, *desk, *subscription, *letters)) *desk {
	t.Helper()
	d := &desk{there: make(chan driver.Delivery, 100)}
	synctest.Test(t, func(t *testing.T) {
		d.there = make(chan driver.Delivery, 100)
		settings.RedeliverAfter, settings.CloseTimeout = cmp.Or(settings.RedeliverAfter, 30*time.Second), time.Second
		dead := &letters{}
		sub := newSubscription(&Config{
			Settings: settings, Logger: watermill.NopLogger{}, Explain: func(err error) error { return err }, DeadLetter: dead,
		}, "orders", d)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { // ends with ctx
			defer close(done)
			sub.run(ctx, nil)
		}()
		defer func() { cancel(); <-done }()
		test(t, d, sub, dead)
	})
	return d
}

// here are the messages that are there, by their names, taken in order.
func here(s *subscription, into map[string]*message.Message) (names string) {
	for {
		synctest.Wait()
		select {
		case m := <-s.out:
			names += m.UUID
			into[m.UUID] = m
		default:
			return names
		}
	}
}

// One message of a key is with a handler at a time, in order; those without a key, and of other keys, go on.
func TestKeys_OneAtATime(t *testing.T) {
	ruled(t, driver.Settings{MaxInFlight: 10, Key: "key", NackDelay: time.Second, NackDelayMax: time.Second}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
		got := map[string]*message.Message{}
		d.put("a:x", "b:x", "c", "d:y", "e:x", "f:y", "g")
		require.Equal(t, "acdg", here(s, got))
		got["a"].Nack()
		require.Empty(t, here(s, got), "what is behind waits, also while the nacked one does")
		time.Sleep(time.Second)
		require.Equal(t, "a", here(s, got))
		got["d"].Ack()
		require.Empty(t, strings.Trim(here(s, got), "f"))
		time.Sleep(longestLook)
		here(s, got)
		require.NotNil(t, got["f"], "an ack that overtakes others lets the next of its key go")
		got["a"].Ack()
		time.Sleep(longestLook)
		require.Equal(t, "b", here(s, got))
		got["b"].Ack()
		time.Sleep(longestLook)
		require.Equal(t, "e", here(s, got))
		for _, name := range []string{"c", "e", "f", "g"} {
			got[name].Ack()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Empty(t, s.behind)
		require.Empty(t, s.held)
		require.Empty(t, s.byID)
	})
}

// A message that comes again waits twice as long each time, up to the most, and after its last attempt becomes a dead
// letter, which is published until that works.
func TestNack_WaitsThenBuries(t *testing.T) {
	set := driver.Settings{MaxInFlight: 1, Batch: 2, NackDelay: time.Second, NackDelayMax: 3 * time.Second, Attempts: 5, DeadLetter: "dead"}
	ruled(t, set, func(t *testing.T, d *desk, s *subscription, dead *letters) {
		dead.fails = 2
		d.put("a:k", "b")
		var waits []time.Duration
		began := time.Now()
		for range 5 {
			m := <-s.out
			require.Equal(t, "a", m.UUID)
			waits = append(waits, time.Since(began))
			began = time.Now()
			m.Nack()
		}
		require.Equal(t, []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second}, waits)
		m := <-s.out
		require.Equal(t, "b", m.UUID, "it takes the place only when the dead letter is published")
		require.Len(t, dead.got, 1)
		letter := dead.got[0]
		require.Equal(t, []string{"a", "k", "dead", "orders", "attempts exhausted"}, []string{
			letter.UUID, letter.Metadata.Get("key"), letter.Metadata.Get("published at"), letter.Metadata.Get(middleware.PoisonedTopicKey),
			letter.Metadata.Get(middleware.ReasonForPoisonedKey),
		})
		require.Equal(t, "settle a", d.said())
		m.Ack()
	})
}

// A message that is due again comes before those that are on offer, and none is lost or taken for it.
func TestNack_ComesBeforeWhatIsOnOffer(t *testing.T) {
	d := ruled(t, driver.Settings{MaxInFlight: 3, NackDelay: time.Second, NackDelayMax: time.Second}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
		got := map[string]*message.Message{}
		d.put("a")
		require.Equal(t, "a", here(s, got))
		got["a"].Nack()
		d.put("b", "c")
		time.Sleep(2 * time.Second) // b is offered when a is due
		require.Equal(t, "abc", here(s, got))
		got["b"].Ack()
		got["a"].Ack()
		time.Sleep(longestLook)
	})
	require.ElementsMatch(t, []string{"a", "b"}, settledBy(d))
	require.Equal(t, "return c", d.told[len(d.told)-1])
}

// settledBy are the names of what was settled.
func settledBy(d *desk) (names []string) {
	for _, one := range d.told {
		if rest, ok := strings.CutPrefix(one, "settle "); ok {
			names = append(names, strings.Fields(rest)...)
		}
	}
	return names
}

// What the engine gives again while it is in hand is handled once, and settled under both of its tokens.
func TestRepeat_IsSettledToo(t *testing.T) {
	d := ruled(t, driver.Settings{MaxInFlight: 3}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
		got := map[string]*message.Message{}
		d.put("a", "b")
		require.Equal(t, "ab", here(s, got))
		d.put("a'", "b'")
		require.Empty(t, here(s, got))
		got["a"].Ack()
		require.Equal(t, "settle a, settle a'", d.said())
		d.put("a''")
		require.Equal(t, "a", here(s, got), "it is forgotten once it is settled")
		got["a"].Ack()
		time.Sleep(longestLook)
		require.Equal(t, "settle a''", d.said())
	})
	require.Equal(t, []string{"return b'"}, d.told, "with the token that counts")
	require.True(t, d.closed)
}

// A request that settles is made again until it works; what is acked meanwhile goes with the next one. What the engine
// could not be told is told at the end.
func TestSettle_TriesAgain(t *testing.T) {
	d := ruled(t, driver.Settings{MaxInFlight: 4, RedeliverAfter: time.Hour}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
		got := map[string]*message.Message{}
		d.put("a", "b", "c", "d")
		require.Equal(t, "abcd", here(s, got))
		d.mu.Lock()
		d.fails, d.slow = 2, time.Second
		d.mu.Unlock()
		got["a"].Ack()
		synctest.Wait()
		got["b"].Ack()
		got["c"].Ack()
		time.Sleep(10 * time.Second)
		require.Equal(t, "settle a, settle a, settle a, settle b c", d.said())
		d.mu.Lock()
		d.fails, d.slow = 1<<30, 0
		d.mu.Unlock()
		got["d"].Ack()
		time.Sleep(10 * time.Minute)
		tries := strings.Count(d.said(), "settle d")
		require.InDelta(t, 160, tries, 80, "up to 5 s between them")
	})
	require.Equal(t, "settle d", d.told[len(d.told)-1])
	require.NotContains(t, strings.Join(d.told, " "), "return")
}

// No more is asked for than there is room: as many as may be in flight, or as one request may carry if that is more.
func TestFetch_AsksForWhatThereIsRoomFor(t *testing.T) {
	for _, test := range []struct {
		inFlight, batch int
		asked           []int
	}{{3, 0, []int{3, 1}}, {3, 2, []int{3, 1}}, {3, 5, []int{5, 3, 1}}} {
		d := ruled(t, driver.Settings{MaxInFlight: test.inFlight, Batch: test.batch}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
			got := map[string]*message.Message{}
			synctest.Wait()
			d.put("a")
			synctest.Wait()
			d.put("b")
			require.Equal(t, "ab", here(s, got))
			d.put("c", "d", "e", "f")
			require.Equal(t, "c", here(s, got), "three are in flight")
			got["a"].Ack()
			require.Equal(t, "d", here(s, got))
		})
		require.Equal(t, test.inFlight, test.asked[0]-max(0, test.batch-test.inFlight))
		require.Equal(t, max(test.inFlight, test.batch), d.asked[0])
		for i, n := range d.asked {
			require.LessOrEqual(t, n, max(test.inFlight, test.batch)-min(i, 2), d.asked)
			require.Positive(t, n)
		}
	}
	d := ruled(t, driver.Settings{MaxInFlight: 1}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
		synctest.Wait() // the first one is asked for
		d.mu.Lock()
		d.fails = 50
		d.mu.Unlock()
		d.put("x", "a")
		(<-s.out).Ack()
		began := time.Now()
		m := <-s.out
		require.Equal(t, "a", m.UUID)
		require.InDelta(t, 170*time.Second, time.Since(began), float64(80*time.Second), "up to 5 s between the tries")
		m.Ack()
	})
	require.NotEmpty(t, d.asked)
}

// All that is in hand is kept from other members, each third of the time after which these would get it.
func TestExtend_WhatIsInHand(t *testing.T) {
	ruled(t, driver.Settings{MaxInFlight: 2}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
		time.Sleep(11 * time.Second)
		require.Empty(t, d.said(), "there is nothing in hand")
		d.put("a")
		m := <-s.out
		time.Sleep(20 * time.Second)
		require.Equal(t, "extend a, extend a", d.said())
		m.Ack()
		require.Equal(t, "settle a", d.said())
		time.Sleep(time.Minute)
		require.Empty(t, d.said())
	})
}

// The end waits for handlers up to CloseTimeout, and gives back what none has.
func TestEnd_WaitsForHandlers(t *testing.T) {
	for _, late := range []time.Duration{900 * time.Millisecond, 1100 * time.Millisecond} {
		var took time.Duration
		d := ruled(t, driver.Settings{MaxInFlight: 1, Batch: 3}, func(t *testing.T, d *desk, s *subscription, _ *letters) {
			d.put("a", "b")
			m := <-s.out
			synctest.Wait()
			time.AfterFunc(late, func() { m.Ack() })
			began := time.Now()
			context.AfterFunc(m.Context(), func() { took = time.Since(began) })
		})
		if late < time.Second {
			require.Equal(t, []string{"settle a", "return b"}, d.told)
		} else {
			require.Equal(t, time.Second, took, "then the message's context ends")
			require.Len(t, d.told, 1)
			require.Len(t, strings.Fields(d.told[0]), 3)
		}
	}
}

// A dead letter that is under way at the end is published, if that takes no longer than CloseTimeout.
func TestEnd_WaitsForDeadLetters(t *testing.T) {
	var dead *letters
	d := ruled(t, driver.Settings{MaxInFlight: 1, Attempts: 1, DeadLetter: "dead"}, func(_ *testing.T, d *desk, s *subscription, l *letters) {
		dead, l.fails = l, 2
		d.put("a")
		(<-s.out).Nack()
		synctest.Wait()
	})
	require.Len(t, dead.got, 1)
	require.Equal(t, []string{"settle a"}, d.told)
}
