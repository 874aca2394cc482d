package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

func TestTopic_ReportsWhatHasTakenTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, s := newTestTopic()
		var said []Behind
		topic.OnBehind(func(b Behind) { said = append(said, b) })
		slow, fast := topic.Join("slow", quiet), topic.Join("fast", quiet)
		feed(t, topic, s, 1, 700)
		topic.CheckBehind()
		require.Empty(t, said, "there is room")
		feed(t, topic, s, 701, 1000)
		for seq := uint64(1); seq <= 600; seq++ {
			fast.Settle(take(t, fast, seq))
		}
		topic.CheckBehind()
		require.Equal(t, []Behind{{Group: "slow", Members: 1, Unsettled: 1000}}, said)
		topic.CheckBehind()
		for seq := uint64(1); seq <= 1000; seq++ {
			claim(t, slow, take(t, slow, seq), fmt.Sprint("key", min(seq, 2)), seq <= 2)
			if seq <= 501 {
				slow.CheckKey("key2")
				require.Len(t, said, 1, "neither is half of it, nor a minute over")
			}
		}
		slow.CheckKey("key1")
		slow.CheckKey("unknown")
		slow.CheckKey("key2")
		slow.CheckKey("key2")
		key := Behind{Group: "slow", Members: 1, Unsettled: 1000, Key: "key2", WaitForKey: 998}
		require.Equal(t, []Behind{key}, said[1:])
		time.Sleep(sayBehindAfter)
		topic.CheckBehind()
		slow.CheckKey("key2")
		require.Len(t, said, 4)
		topic.Drop("slow")
		time.Sleep(sayBehindAfter)
		topic.CheckBehind()
		require.Len(t, said, 4)
	})
}

func TestTopic_RefusalIsReportedWhenAllGroupsAreDone(t *testing.T) {
	no := Refusal{Undecodable: true, Reason: "no"}
	for name, c := range map[string]struct {
		end  []func(*Member, Delivery)
		want *Refusal
	}{
		"all settle":         {[]func(*Member, Delivery){(*Member).Settle, (*Member).Settle, (*Member).Settle}, nil},
		"the first refuses":  {[]func(*Member, Delivery){refuse(no), (*Member).Settle, (*Member).Settle}, &no},
		"the second refuses": {[]func(*Member, Delivery){(*Member).Settle, refuse(no), (*Member).Settle}, &no},
		"the last refuses":   {[]func(*Member, Delivery){(*Member).Settle, (*Member).Settle, refuse(no)}, &no},
		"only one group":     {[]func(*Member, Delivery){refuse(no)}, &no},
	} {
		t.Run(name, func(t *testing.T) {
			topic, s := newTestTopic()
			var members []*Member
			for i := range c.end {
				members = append(members, topic.Join(string(rune('a'+i)), quiet))
			}
			feed(t, topic, s, 1, 2)
			for i, end := range c.end {
				require.Empty(t, s.reported())
				take(t, members[i], 1)
				end(members[i], take(t, members[i], 2))
			}
			require.Equal(t, []uint64{2}, s.reported())
			if c.want == nil {
				require.Equal(t, 1, s.settled[2])
				return
			}
			require.Equal(t, []Refusal{*c.want}, s.refused[2])
		})
	}
}

func refuse(r Refusal) func(*Member, Delivery) {
	return func(m *Member, d Delivery) { m.Refuse(d, r) }
}

// A group refuses what it likes of a run, and all of it is reported when the other group is done.
func TestTopic_RefusalsOfARunAreKept(t *testing.T) {
	topic, s := newTestTopic()
	first, second := topic.Join("a", quiet), topic.Join("b", quiet)
	feed(t, topic, s, 1, 3)
	for seq := uint64(1); seq <= 3; seq++ {
		first.Refuse(take(t, first, seq), Refusal{Reason: fmt.Sprint("no ", seq)})
	}
	for seq := uint64(1); seq <= 3; seq++ {
		second.Settle(take(t, second, seq))
		require.Equal(t, []Refusal{{Reason: fmt.Sprint("no ", seq)}}, s.refused[seq])
	}
	require.Empty(t, s.settled)
	requireFull(t, topic)
}

// Those are behind that have at least half as much to settle as the one that has most.
func TestTopic_ReportsWhoIsHalfAsFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, s := newTestTopic()
		var said []Behind
		topic.OnBehind(func(b Behind) { said = append(said, b) })
		done := map[string]uint64{"most": 0, "half": 500, "less": 501, "none": 1000}
		for _, name := range []string{"most", "half", "less", "none"} {
			topic.Initialize(name)
		}
		feed(t, topic, s, 1, 1000)
		for name, n := range done {
			m := topic.Join(name, quiet)
			for seq := uint64(1); seq <= n; seq++ {
				m.Settle(take(t, m, seq))
			}
			m.Leave()
		}
		topic.CheckBehind()
		require.Equal(t, []Behind{{Group: "most", Unsettled: 1000}, {Group: "half", Unsettled: 500}}, said)
		claim := &flow.Claim{Want: windowRoom, Enough: windowRoom, Least: windowRoom, Grant: func(flow.Amount) {}}
		topic.window.Wait(claim)
		require.Equal(t, `its window holds 1000 messages, 10000 bytes, that are not handled or on their way: `+
			`group "most", which has no subscription now, has not handled 1000, group "half", which has no subscription now, has not handled 500`,
			topic.Shortage())
	})
}

// A key is reported when half of what its group has not settled waits for it, and not before.
func TestTopic_ReportsAKeyThatHalfWaitsFor(t *testing.T) {
	for waiting, reported := range map[int]bool{499: false, 500: true, 501: true} {
		synctest.Test(t, func(t *testing.T) {
			topic, s := newTestTopic()
			var said []Behind
			topic.OnBehind(func(b Behind) { said = append(said, b) })
			m := topic.Join("g", quiet)
			feed(t, topic, s, 1, 1000)
			for seq := 1; seq <= waiting+1; seq++ {
				claim(t, m, take(t, m, uint64(seq)), "k", seq == 1)
			}
			m.CheckKey("k")
			require.Equal(t, reported, len(said) == 1, "%d wait", waiting)
		})
	}
}

// Room that is given out and has no message yet is no group's fault.
func TestTopic_ReportsNoneWhereNothingHasArrived(t *testing.T) {
	topic, _ := newTestTopic()
	topic.OnBehind(func(b Behind) { t.Errorf("reported: %+v", b) })
	topic.Join("g", quiet)
	require.Equal(t, windowRoom, topic.window.Take(windowRoom))
	topic.CheckBehind()
}
