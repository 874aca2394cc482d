package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
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
