package moves

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// leaving is a stream of ten messages that waits for its receiver's last Returned: consumers have three.
type leaving struct {
	*world
	a, b     *host
	from, to *sender.Sender
	st       *sender.Stream
}

func newLeaving(t *testing.T, moveAfter time.Duration) *leaving {
	testkit.CheckLeaks(t)
	l := &leaving{a: newHost(t), b: newHost(t), world: newWorld(t, moveAfter)}
	l.from, l.to = l.sender(l.a.address()), l.sender(l.b.address())
	l.st = l.stream(l.from)
	l.publish(l.st, 10)
	l.a.take(3)
	l.a.holds(7)
	return l
}

// drain has the receiver close, and waits until it has given back what it can.
func (l *leaving) drains() {
	l.a.receiver.Drain()
	l.a.holds(0)
	require.Same(l.t, l.from, l.st.Sender())
}

// arrives requires that everything gets to the second host.
func (l *leaving) arrives(n int) {
	l.t.Helper()
	l.b.handle(n)
	l.drain(l.st)
	require.Equal(l.t, l.to, l.st.Sender())
}

func TestMoves_LostWhileDrainingConsumersHaveSome(t *testing.T) {
	l := newLeaving(t, never)
	l.alternative(l.to)
	l.drains()
	l.a.gate.kill()
	l.arrives(10)
	require.Contains(t, l.b.marked(), 1)
}

func TestMoves_LostBeforeTheAnswer(t *testing.T) {
	l := newLeaving(t, never)
	l.a.gate.pause()
	l.st.MoveTo(l.to)
	l.a.gate.kill()
	l.a.gate.resume()
	l.arrives(10)
}

func TestMoves_LostAndTheAlternativeComesLater(t *testing.T) {
	for name, early := range map[string]bool{"before the drain": true, "after it": false} {
		t.Run(name, func(t *testing.T) {
			l := newLeaving(t, never)
			if early {
				l.alternative(l.to)
				l.drains()
				l.alternative(nil)
			} else {
				l.a.receiver.Drain()
			}
			l.a.gate.kill()
			require.Eventually(t, func() bool { return l.from.State() == sender.Gone || l.st.Sender() == l.to }, patience, time.Millisecond)
			l.alternative(l.to)
			l.arrives(10)
		})
	}
}

func TestMoves_TargetIsClosedWhenTheAnswerComes(t *testing.T) {
	for name, end := range map[string]func(*leaving){
		"answered":             func(l *leaving) { l.a.settle(3) },
		"lost":                 func(l *leaving) { l.a.gate.kill() },
		"drained and answered": func(l *leaving) { l.a.receiver.Drain(); l.a.settle(3) },
		"drained and lost":     func(l *leaving) { l.a.receiver.Drain(); l.a.gate.kill() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLeaving(t, never)
			left := l.sender(newHost(t).address())
			l.st.MoveTo(left)
			l.a.holds(0)
			left.Close()
			l.alternative(l.to)
			end(l)
			if name == "answered" { // it stays
				l.a.handle(7)
				l.drain(l.st)
				require.Equal(t, l.from, l.st.Sender())
				return
			}
			l.b.take(7)
			for len(l.b.inHand) > 0 {
				l.b.settle(1)
			}
			require.Eventually(t, func() bool {
				for d, _, ok := l.b.member.Take(); ok; d, _, ok = l.b.member.Take() {
					l.b.member.Settle(d)
				}
				return l.st.Unsettled() == 0
			}, patience, time.Millisecond)
			require.Equal(t, l.to, l.st.Sender())
		})
	}
}

func TestMoves_TargetIsGoneWhenTheAnswerComes(t *testing.T) {
	for name, end := range map[string]func(*leaving){
		"answered": func(l *leaving) { l.a.settle(3) },
		"lost":     func(l *leaving) { l.a.gate.kill() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLeaving(t, never)
			c := newHost(t)
			gone := l.sender(c.address())
			l.st.MoveTo(gone)
			l.a.holds(0)
			c.gate.kill()
			l.alternative(l.to)
			end(l)
			l.arrives(map[string]int{"answered": 7, "lost": 10}[name])
		})
	}
}

func TestMoves_LostAndMetAgain(t *testing.T) {
	for name, end := range map[string]func(*leaving) int{
		"answered": func(l *leaving) int { l.a.settle(3); return 7 },
		"lost":     func(l *leaving) int { l.a.gate.kill(); return 10 },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLeaving(t, never)
			l.alternative(l.to)
			l.st.MoveTo(l.to)
			l.a.holds(0)
			connects := l.from.Stats().Connects
			l.a.gate.reset()
			require.Eventually(t, func() bool { return l.from.Stats().Connects > connects }, patience, time.Millisecond)
			require.Same(t, l.from, l.st.Sender())
			l.arrives(end(l))
		})
	}
}

// A stream that is to stay after all waits for slow consumers no longer than one that moves.
func TestMoves_StaysThoughConsumersHaveSome(t *testing.T) {
	l := newLeaving(t, 300*time.Millisecond)
	l.st.MoveTo(l.to)
	l.a.holds(0)
	l.st.MoveTo(l.from)
	l.publish(l.st, 2)
	l.a.take(12 - 3 + 3)
	l.a.settle(15)
	l.drain(l.st)
	require.Equal(t, l.from, l.st.Sender())
}

// The same, when the connection is lost first.
func TestMoves_StaysThoughTheConnectionWasLost(t *testing.T) {
	l := newLeaving(t, never)
	l.st.MoveTo(l.to)
	l.a.holds(0)
	connects := l.from.Stats().Connects
	l.a.gate.reset()
	require.Eventually(t, func() bool { return l.from.Stats().Connects > connects }, patience, time.Millisecond)
	l.st.MoveTo(l.from)
	l.publish(l.st, 2)
	l.a.settle(3)
	l.a.handle(9)
	l.drain(l.st)
	require.Equal(t, connects+1, l.from.Stats().Connects, "no end has broken the protocol")
}

// An address that nothing uses is closed. A stream that was on its way there stays, and one that has come keeps it open.
func TestMoves_NotToWhatIsRetired(t *testing.T) {
	l := newLeaving(t, never)
	l.st.MoveTo(l.to)
	l.a.holds(0)
	require.False(t, l.from.Retire(false))
	require.True(t, l.to.Retire(false))
	l.a.settle(3)
	l.a.handle(7)
	l.drain(l.st)
	require.Equal(t, l.from, l.st.Sender())

	c := newHost(t)
	next := l.sender(c.address())
	l.st.MoveTo(next)
	l.moved(1)
	require.False(t, next.Retire(false), "it has a stream, though without messages")
}

// A receiver that is gone has nothing to be told; one that is only silent would go on with what has moved.
func TestMoves_RetiresWhatIsGone(t *testing.T) {
	for name, lose := range map[string]func(*gate){"gone": (*gate).kill, "silent": (*gate).pause} {
		t.Run(name, func(t *testing.T) {
			l := newLeaving(t, 300*time.Millisecond)
			lose(l.a.gate)
			l.st.MoveTo(l.to)
			l.arrives(10)
			if name == "gone" {
				require.Eventually(t, func() bool { return l.from.Retire(false) }, patience, time.Millisecond)
			}
			require.Equal(t, name == "gone", l.from.Retire(false))
			require.True(t, l.from.Retire(true))
			l.a.gate.resume()
		})
	}
}

// What a receiver has that lets this side in no more moves as from one that is silent.
func TestMoves_LostAndRefusedSince(t *testing.T) {
	l := newLeaving(t, 600*time.Millisecond)
	l.alternative(l.to)
	l.a.refuses.Store(true)
	l.a.gate.reset()
	l.arrives(10)
}
