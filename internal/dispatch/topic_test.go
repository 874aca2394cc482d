package dispatch

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

func TestTopic_EveryGroupGetsEveryMessage(t *testing.T) {
	topic, s := newTestTopic()
	topic.Initialize("a")
	topic.Initialize("b")
	feed(t, topic, s, 1, 3)
	topic.Initialize("late") // gets what comes from now on
	feed(t, topic, s, 4, 5)
	members := map[string]*Member{}
	for _, g := range []string{"a", "b", "late"} {
		members[g] = topic.Join(g, quiet)
	}
	require.Equal(t, []int{5, 5, 2, 0}, []int{
		topic.Backlog("a"), topic.Backlog("b"), topic.Backlog("late"), topic.Backlog("unknown"),
	})
	for seq := uint64(1); seq <= 5; seq++ {
		members["a"].Settle(take(t, members["a"], seq))
	}
	require.Empty(t, s.reported())
	for seq := uint64(5); seq > 3; seq-- {
		members["late"].Settle(take(t, members["late"], 9-seq))
	}
	require.Empty(t, s.reported(), "two of three groups are not all")
	var held []Delivery
	for seq := uint64(1); seq <= 5; seq++ {
		held = append(held, take(t, members["b"], seq))
	}
	for i := range held { // acks come in any order
		members["b"].Settle(held[len(held)-1-i])
		require.Equal(t, 5-uint64(i), s.reported()[i])
	}
	for seq, n := range s.settled {
		require.Equal(t, 1, n, "%d", seq)
	}
	requireFull(t, topic)
}

func TestTopic_MembersOfAGroupShare(t *testing.T) {
	topic, s := newTestTopic()
	m1, m2 := topic.Join("g", quiet), topic.Join("g", quiet)
	feed(t, topic, s, 1, 4)
	m1.Settle(take(t, m1, 1))
	m2.Settle(take(t, m2, 2))
	m2.Settle(take(t, m2, 3))
	m1.Settle(take(t, m1, 4))
	takeNone(t, m1)
	takeNone(t, m2)
	require.Equal(t, seqRange(1, 4), s.reported())
	requireFull(t, topic)
}

func TestTopic_ReturnedMessagesComeAgainInTheirPlace(t *testing.T) {
	topic, s := newTestTopic()
	other := newSource()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 3)
	feed(t, topic, other, 1, 2) // sequences of another stream
	var held []Delivery
	for range 5 {
		d, _, ok := m.Take()
		require.True(t, ok)
		held = append(held, d)
	}
	for _, i := range []int{3, 0, 4, 2} {
		held[i].Attempt = i + 1
		m.Return(held[i])
	}
	require.Equal(t, 4, topic.Backlog("g"))
	feed(t, topic, s, 4, 4)
	for _, i := range []int{0, 2, 3, 4} {
		d, _, ok := m.Take()
		require.True(t, ok)
		require.Equal(t, held[i].pos(), d.pos())
		require.Equal(t, held[i].Message(), d.Message())
		source, seq := d.Origin()
		wantSource, wantSeq := held[i].Origin()
		require.Same(t, wantSource, source)
		require.Equal(t, wantSeq, seq)
		require.Equal(t, i+1, d.Attempt, "attempts are remembered")
		m.Settle(d)
	}
	m.Settle(held[1])
	m.Settle(take(t, m, 4))
	takeNone(t, m)
	require.Len(t, s.reported(), 4)
	require.Len(t, other.reported(), 2)
	requireFull(t, topic)
}

func TestTopic_SubscriptionsWithoutAGroupEachGetAll(t *testing.T) {
	topic, s := newTestTopic()
	a := topic.Join("", quiet)
	feed(t, topic, s, 1, 2)
	b := topic.Join("", quiet)
	feed(t, topic, s, 3, 4)
	for seq := uint64(1); seq <= 4; seq++ {
		a.Settle(take(t, a, seq))
	}
	require.Equal(t, seqRange(1, 2), s.reported(), "only one was there")
	b.Settle(take(t, b, 3))
	b.Leave() // another one lives: what b had not taken is settled for it
	require.Equal(t, seqRange(1, 4), s.reported())
	feed(t, topic, s, 5, 6)
	a.Settle(take(t, a, 5))
	d := take(t, a, 6)
	a.Return(d)
	a.Leave() // the last one: what it had not settled waits
	a.Leave()
	require.Equal(t, seqRange(1, 5), s.reported())
	feed(t, topic, s, 7, 7)
	c := topic.Join("", quiet)
	again := take(t, c, 4) // b had not settled it
	require.True(t, again.Redelivered)
	c.Settle(again)
	c.Settle(take(t, c, 6))
	c.Settle(take(t, c, 7))
	takeNone(t, c)
	require.Equal(t, seqRange(1, 7), s.reported())
	requireFull(t, topic)
}

func TestTopic_VacantGroupWaitsForTheNextSubscription(t *testing.T) {
	topic, s := newTestTopic()
	topic.Initialize("")
	topic.Initialize("") // one is enough
	feed(t, topic, s, 1, 3)
	a := topic.Join("", quiet)
	topic.Initialize("") // there is a subscription
	feed(t, topic, s, 4, 4)
	for seq := uint64(1); seq <= 4; seq++ {
		a.Settle(take(t, a, seq))
	}
	require.Equal(t, seqRange(1, 4), s.reported())
	a.Leave()
	topic.Initialize("") // the vacant group is there already
	feed(t, topic, s, 5, 5)
	named := topic.Join("named", quiet)
	topic.Initialize("") // there is a group
	feed(t, topic, s, 6, 6)
	b := topic.Join("", quiet)
	feed(t, topic, s, 7, 7)
	require.Equal(t, []uint64{1, 2, 3, 5, 7}, takeAll(t, b), "what waited for the first to come, and what came since")
	require.Equal(t, seqRange(1, 4), s.reported(), "the named one was the first")
	require.Equal(t, seqRange(5, 7), takeAll(t, named))
	require.Equal(t, seqRange(1, 7), s.reported())
	requireFull(t, topic)
}

func TestTopic_DeclaredGroupsKeepTheWindowClosed(t *testing.T) {
	topic, _ := newTestTopic("a", "b")
	want := flow.Amount{Messages: 1, Bytes: each}
	var granted []flow.Amount
	topic.window.Wait(&flow.Claim{Want: want, Least: want, Grant: func(a flow.Amount) { granted = append(granted, a) }})
	closed := func() {
		t.Helper()
		require.Zero(t, topic.window.Take(want))
		require.Empty(t, granted)
	}
	closed()
	topic.Initialize("other")
	closed()
	topic.Initialize("")
	closed()
	topic.Join("", quiet)
	closed()
	topic.Initialize("b")
	topic.Initialize("b")
	closed()
	topic.Join("a", quiet)
	require.Equal(t, []flow.Amount{want}, granted)
	require.Equal(t, want, topic.window.Take(want))
}

func TestTopic_WithoutGroupsKeepsTheWindowClosed(t *testing.T) {
	for name, open := range map[string]func(*Topic){
		"named":    func(topic *Topic) { topic.Initialize("g") },
		"vacant":   func(topic *Topic) { topic.Initialize("") },
		"joined":   func(topic *Topic) { topic.Join("g", quiet) },
		"joined ∅": func(topic *Topic) { topic.Join("", quiet) },
	} {
		topic, _ := newTestTopic()
		want := flow.Amount{Messages: 1, Bytes: each}
		require.Zero(t, topic.window.Take(want), name)
		open(topic)
		require.Equal(t, want, topic.window.Take(want), name)
	}
}

func TestTopic_DropSettlesWhatTheGroupHadNot(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("a", quiet), topic.Join("b", quiet)
	feed(t, topic, s, 1, 5)
	held, back := take(t, b, 1), take(t, b, 2)
	b.Return(take(t, b, 3))
	for seq := uint64(1); seq <= 4; seq++ {
		a.Settle(take(t, a, seq))
	}
	topic.Drop("b")
	topic.Drop("b")
	topic.Drop("")
	require.Equal(t, seqRange(3, 4), s.reported(), "b has 1 and 2, and a has not settled 5")
	b.Settle(held)
	b.Return(back) // the group is gone, and gives nothing out
	require.Equal(t, []uint64{3, 4, 1, 2}, s.reported())
	a.Settle(take(t, a, 5))
	require.Len(t, s.reported(), 5)
	requireFull(t, topic)
}

// A dropped group does not count for later messages, and its members get none.
func TestTopic_MembersOfADroppedGroupGetNothing(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("a", quiet), topic.Join("b", quiet)
	topic.Drop("b")
	feed(t, topic, s, 1, 2)
	takeNone(t, b)
	require.Nil(t, take(t, a, 1).run.left)
	b.Leave()
	again := topic.Join("b", quiet)
	takeNone(t, again)
	feed(t, topic, s, 3, 3)
	again.Settle(take(t, again, 3))
	require.Empty(t, s.reported())
}

func TestTopic_DropRecallsWhatMembersHave(t *testing.T) {
	topic, s := newTestTopic()
	woken := 0
	a, b := topic.Join("a", quiet), topic.Join("b", func() { woken++ })
	feed(t, topic, s, 1, 1)
	ofA, ofB := take(t, a, 1), take(t, b, 1)
	require.False(t, b.MustReturn(&ofB))
	topic.Drop("b")
	require.Equal(t, 1, woken)
	require.True(t, b.Recalled() && b.MustReturn(&ofB))
	require.False(t, a.Recalled() || a.MustReturn(&ofA), "of the other group nothing is recalled")
	b.Return(ofB)
	a.Settle(ofA)
	require.Equal(t, []uint64{1}, s.reported())
}

func TestTopic_MessagesWaitAfterTheLastGroupWasDropped(t *testing.T) {
	topic, s := newTestTopic()
	topic.Initialize("g")
	feed(t, topic, s, 1, 2)
	topic.Drop("g")
	require.Equal(t, seqRange(1, 2), s.reported())
	feed(t, topic, s, 3, 4) // the window has given credit already
	m := topic.Join("h", quiet)
	feed(t, topic, s, 5, 5)
	takeNone(t, topic.Join("", quiet))
	for seq := uint64(3); seq <= 5; seq++ {
		m.Settle(take(t, m, seq))
	}
	require.Equal(t, seqRange(1, 5), s.reported())
	requireFull(t, topic)
}

// What comes between the end of the only group and its return is the returning group's, which nothing holds up.
func TestTopic_DroppedGroupIsMadeAnew(t *testing.T) {
	topic, s := newTestTopic()
	topic.Join("g", quiet)
	feed(t, topic, s, 1, 1)
	topic.Drop("g")
	feed(t, topic, s, 2, 3)
	m := topic.Join("g", quiet)
	feed(t, topic, s, 4, 4)
	for seq := uint64(2); seq <= 4; seq++ {
		m.Settle(take(t, m, seq))
	}
	require.Equal(t, seqRange(1, 4), s.reported())
	requireFull(t, topic)
}

func TestTopic_DroppedDeclaredGroupIsNotWaitedFor(t *testing.T) {
	one := flow.Amount{Messages: 1, Bytes: each}
	topic, _ := newTestTopic("a", "retired")
	topic.Drop("retired")
	require.Zero(t, topic.window.Take(one), "there is no group")
	topic.Join("a", quiet)
	require.Equal(t, one, topic.window.Take(one))

	topic, _ = newTestTopic("a", "retired")
	topic.Join("a", quiet)
	require.Zero(t, topic.window.Take(one))
	topic.Drop("retired")
	require.Equal(t, one, topic.window.Take(one))
	require.False(t, topic.Retire(), "it would be declared anew")
}

func TestTopic_DropOfNoNameEndsWhatWaitsForASubscription(t *testing.T) {
	topic, s := newTestTopic()
	topic.Initialize("")
	feed(t, topic, s, 1, 1)
	require.Empty(t, s.reported())
	topic.Drop("")
	require.Equal(t, seqRange(1, 1), s.reported())
	single := topic.Join("", quiet)
	topic.Drop("") // nothing waits
	feed(t, topic, s, 2, 2)
	single.Settle(take(t, single, 2))
	requireFull(t, topic)
}

func TestTopic_HeldKeepsTheWindowClosed(t *testing.T) {
	one := flow.Amount{Messages: 1, Bytes: each}
	topic, _ := newTestTopic("g")
	topic.Hold(true)
	topic.Join("g", quiet)
	require.Zero(t, topic.window.Take(one))
	topic.Hold(false)
	require.Equal(t, one, topic.window.Take(one))
	topic.Hold(true) // it is open already
	require.Equal(t, one, topic.window.Take(one))

	topic, _ = newTestTopic()
	topic.Hold(true)
	topic.Hold(false)
	require.Zero(t, topic.window.Take(one), "there is no group")
}

func TestTopic_NobodyJoinsOneThatHasEnded(t *testing.T) {
	for name, end := range map[string]func(*Topic){
		"retired": func(topic *Topic) { require.True(t, topic.Retire()) },
		"ephemeral": func(topic *Topic) {
			topic.MakeEphemeral(func(int) {})
			topic.Join("", quiet).Leave()
		},
	} {
		topic, _ := newTestTopic()
		end(topic)
		require.Nil(t, topic.Join("g", quiet), name)
		require.Nil(t, topic.Join("", quiet), name)
		require.False(t, topic.Initialize("g"), name)
		require.False(t, topic.Retire(), name)
	}
}

// A topic retires when nobody waits for its messages and it keeps none for anybody.
func TestTopic_RetiresWhenUnused(t *testing.T) {
	for name, c := range map[string]struct {
		retires bool
		begin   func(*Topic, *source)
	}{
		"new":         {true, func(*Topic, *source) {}},
		"group":       {false, func(topic *Topic, _ *source) { topic.Join("g", quiet).Leave() }},
		"initialized": {false, func(topic *Topic, _ *source) { topic.Initialize("") }},
		"dropped":     {true, func(topic *Topic, _ *source) { topic.Join("g", quiet); topic.Drop("g") }},
		"single":      {false, func(topic *Topic, _ *source) { topic.Join("", quiet) }},
		"single left": {true, func(topic *Topic, _ *source) { topic.Join("", quiet).Leave() }},
		"left, and initialized": {false, func(topic *Topic, _ *source) {
			topic.Join("", quiet).Leave()
			topic.Initialize("")
		}},
		"left something": {false, func(topic *Topic, s *source) {
			m := topic.Join("", quiet)
			feed(t, topic, s, 1, 1)
			m.Leave()
		}},
		"left nothing": {true, func(topic *Topic, s *source) {
			m := topic.Join("", quiet)
			feed(t, topic, s, 1, 1)
			m.Settle(take(t, m, 1))
			m.Leave()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			topic, s := newTestTopic()
			called := 0
			topic.OnUnused(func() { called++ })
			c.begin(topic, s)
			if c.retires && name != "new" {
				require.NotZero(t, called)
			}
			require.Equal(t, c.retires, topic.Retire())
			topic.Close()
		})
	}
}
