package session

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// tickFor calls Tick as its caller does, ten times a second.
func (p *pair) tickFor(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); {
		p.now = p.now.Add(100 * time.Millisecond)
		require.NoError(p.t, p.client.Tick(p.now, late))
		p.flow()
	}
}

// Messages of an ephemeral stream are refused when they have found no topic for a second, whatever it is that is absent.
// Those to the same topic that are not ephemeral wait.
func TestEphemeral_RefusesWhatFindsNoTopic(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(p *pair)
		release bool
	}{
		"no peer":            {func(*pair) {}, false},
		"no subscription":    {func(p *pair) { p.remote.manual = true; p.connect(); p.flow() }, true},
		"the peer went away": {func(p *pair) { p.connect(); p.flow(); p.cut() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.enqueue(Ephemeral("a"), many(3)...)
			w := &Waiter{Level: Handled, First: 1, Last: 3, Done: make(chan struct{}, 1)}
			p.client.Await(p.client.Find(Ephemeral("a")), w)
			p.enqueue("a", many(2)...)
			p.enqueue(Ephemeral("empty"))
			c.prepare(p)
			p.tickFor(time.Second)
			require.Empty(t, p.client.Refused(), "it may still come")
			p.tickFor(300 * time.Millisecond)
			refused := append(p.refused, p.client.Refused()...)
			require.Len(t, refused, 3)
			for i, r := range refused {
				require.Equal(t, "a", r.Topic)
				require.Equal(t, uint64(i+1), r.Sequence)
				require.True(t, r.Ephemeral)
				require.ErrorIs(t, r.Err, ErrTopicGone)
			}
			require.ErrorIs(t, w.Err, ErrTopicGone)
			require.Nil(t, p.client.Find(Ephemeral("a")))
			require.NotNil(t, p.client.Find(Ephemeral("empty")), "it has nothing to wait for")
			require.Equal(t, 2, p.client.Find("a").Pending())
			released := slices.ContainsFunc(p.remote.seen, func(frame any) bool {
				_, ok := frame.(*wire.Release)
				return ok
			})
			require.Equal(t, c.release, released, "a receiver that has the stream is told that it is over")
		})
	}
}

func TestEphemeral_WaitsForATopicThatIsThere(t *testing.T) {
	p := newPair(t, roomy, smallRoom)
	p.connect()
	p.enqueue(Ephemeral("a"), many(8)...)
	p.tickFor(10 * time.Second)
	require.Empty(t, p.refused)
	s := p.remote.stream("a")
	for settled := 0; settled < 8; {
		require.Greater(t, len(s.order), settled)
		fresh := s.order[settled:]
		settled = len(s.order)
		p.remote.settle(s, fresh...)
		p.remote.serve()
		p.tickFor(100 * time.Millisecond)
	}
	require.Equal(t, upTo(8), s.order)
}

// A receiver that ends a stream tells what was settled, and does not say of the rest that it was received.
func TestInbound_EndTellsWhatIsSettled(t *testing.T) {
	for name, c := range map[string]struct {
		settled []uint64
		told    bool // what was received was told before
		next    uint64
	}{
		"nothing": {nil, false, 0}, "the first": {[]uint64{1}, false, 2}, "the third": {[]uint64{3}, false, 4},
		"all":        {[]uint64{1, 2, 3, 4}, false, 5},
		"none, told": {nil, true, 0}, "one, told": {[]uint64{2}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			in := NewInbound(1)
			in.Attach(1, 1)
			in.Grant(Amount{Messages: 10, Bytes: 100})
			_, _, _, err := in.Accept(&PublishFrame{Handle: 1, First: 1, Messages: [][]byte{{1}, {2}, {3}, {4}}, Bytes: 12})
			require.NoError(t, err)
			if c.told {
				_, ok := in.Ack()
				require.True(t, ok)
			}
			for _, seq := range c.settled {
				in.Settle(seq, seq)
			}
			in.End()
			a, ok := in.Ack()
			require.Equal(t, len(c.settled) > 0, ok)
			require.Equal(t, c.next, a.Next)
			require.Zero(t, a.Messages, "no credit")
			var settled []uint64
			for i := 0; i < len(a.Settled); i += 2 {
				for seq := a.Settled[i]; seq <= a.Settled[i+1]; seq++ {
					settled = append(settled, seq)
				}
			}
			require.Equal(t, c.settled, settled)
			require.Zero(t, in.Refuse(NewPeerError(wire.Code_CODE_TOPIC_GONE, "")).Sequence)
		})
	}
}

// Each absence of a topic has its second: one that was shorter counts for nothing in the next.
func TestEphemeral_CountsEachAbsenceByItself(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.enqueue(Ephemeral("a"), many(1)...)
	for i := range uint64(3) {
		p.tickFor(absentAfter - 200*time.Millisecond)
		p.connect()
		p.tickFor(200 * time.Millisecond)
		s := p.remote.stream("a")
		require.Equal(t, upTo(i+1), s.order)
		p.remote.settle(s, s.order[i])
		p.remote.serve()
		p.tickFor(200 * time.Millisecond)
		p.cut()
		p.enqueue(Ephemeral("a"), many(1)...)
	}
	require.Empty(t, append(p.refused, p.client.Refused()...))
}
