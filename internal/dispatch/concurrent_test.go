package dispatch

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// consumer uses a member as a subscription does: it takes in a loop, and waits to be notified when there is nothing.
type consumer struct {
	topic  *Topic
	group  string
	rng    *rand.Rand
	wake   chan struct{}
	member *Member
	seen   func(Delivery) // called for each delivery that is settled
}

func (c *consumer) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *consumer) join() {
	c.wake = make(chan struct{}, 1)
	c.member = c.topic.Join(c.group, c.notify)
}

// run takes messages until stop is closed.
func (c *consumer) run(stop <-chan struct{}) {
	c.join()
	defer func() { c.member.Leave() }()
	for {
		select {
		case <-stop:
			return
		default:
		}
		d, _, ok := c.member.Take()
		if !ok {
			select {
			case <-c.wake:
				continue
			case <-stop:
				return
			}
		}
		switch n := c.rng.IntN(20); {
		case n == 0:
			d.Attempt++
			c.member.Return(d)
		case n <= 2 && c.member.HasWaiters():
			c.member.Yield(d)
			select {
			case <-c.wake:
			case <-stop:
				return
			}
		case n == 5:
			d.Attempt++
			if !c.member.HandOver(d) {
				c.member.Return(d)
			}
		case n == 3:
			c.member.Return(d)
			c.member.Leave()
			c.join()
		case n == 4:
			c.seen(d)
			c.member.Refuse(d, Refusal{Reason: c.group})
		default:
			c.seen(d)
			c.member.Settle(d)
		}
	}
}

// TestMember_NothingIsLostWhileMembersComeAndGo runs members of two groups that take, settle, return, yield, leave and
// join again at random while messages arrive. Each group settles each message exactly once. A lost wake-up would leave
// every goroutine waiting, which synctest reports.
func TestMember_NothingIsLostWhileMembersComeAndGo(t *testing.T) {
	for seed := range uint64(4) {
		for _, groups := range [][]string{{"one"}, {"one", "two"}} {
			t.Run(fmt.Sprint(seed, groups), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { comeAndGo(t, seed, groups) })
			})
		}
	}
}

func comeAndGo(t *testing.T, seed uint64, groups []string) {
	const members, total = 4, 3000
	topic, s := newTestTopic()
	for _, g := range groups {
		topic.Initialize(g)
	}
	var mu sync.Mutex
	seen := map[string]map[uint64]int{}
	count, all := 0, make(chan struct{})
	var wg sync.WaitGroup
	for i, g := range groups {
		seen[g] = map[uint64]int{}
		for j := range members {
			c := &consumer{topic: topic, group: g, rng: rand.New(rand.NewPCG(seed, uint64(10*i+j)))}
			c.seen = func(d Delivery) {
				mu.Lock()
				defer mu.Unlock()
				seen[g][seqOf(d)]++
				if count++; count == total*len(groups) {
					close(all)
				}
			}
			wg.Go(func() { c.run(all) }) // Ends when all messages were seen; comeAndGo waits for it.
		}
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	for first := uint64(1); first <= total; {
		last := min(total, first+rng.Uint64N(8))
		room := make(chan struct{})
		want := flow.Amount{Messages: int(last - first + 1), Bytes: int(last-first+1) * each}
		topic.window.Wait(&flow.Claim{Want: want, Least: want, Grant: func(flow.Amount) { close(room) }})
		<-room
		topic.Append(s, first, make([][]byte, want.Messages), topicTime, nil)
		first = last + 1
	}
	<-all
	wg.Wait()
	for _, g := range groups {
		require.Len(t, seen[g], total)
		for seq, n := range seen[g] {
			require.Equal(t, 1, n, "%s/%d", g, seq)
		}
	}
	require.Len(t, s.reported(), total)
	refused := 0
	for seq := uint64(1); seq <= total; seq++ {
		require.Equal(t, 1, s.settled[seq]+len(s.refused[seq]), "%d is reported once", seq)
		refused += len(s.refused[seq])
	}
	require.NotZero(t, refused)
	requireFull(t, topic)
}
