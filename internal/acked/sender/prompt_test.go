package sender

import (
	"cmp"
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// promptly is two Senders with their peers. Nothing calls Tick: what happens is not put off until then.
type promptly struct {
	here, there *peer
	from, to    *Sender
	stream      *Stream // at from
	heir        *Stream // at to
	fetched     *FetchedStream
}

func newPromptly(t *testing.T, here *peer) *promptly {
	var mover Mover
	p := &promptly{here: here, there: &peer{credit: 10, settles: true}}
	begin := func(at *peer) *Sender {
		network := testkit.NewNetwork()
		at.serve(t, network)
		return start(t, Config{
			MaxMessageSize: 10 * maxMessage, Dial: network.Dial, Mover: &mover, MoveAfter: time.Hour,
			Changed: func(*Sender) { at.note("change") },
		})
	}
	p.from, p.to = begin(p.here), begin(p.there)
	p.from.OnRefused(p, func(session.Refused) bool { here.note("refusal"); return true })
	p.heir = p.to.NewStream(StreamConfig{Topic: "t"})
	p.stream = p.from.NewStream(StreamConfig{
		Topic: "t", Elsewhere: true, Divide: func(st *Stream) { st.Divide(p.heir) }, Moved: func(Moved) { p.there.note("move") },
	})
	var err error
	p.fetched, err = p.from.Fetch(FetchConfig{
		Identity: p.from.cfg.Identity, Stream: 99, Topic: "f", Base: 1,
		OnSettled: func([]store.Range) {}, OnRefused: func(uint64, *session.PeerError) {},
	})
	require.NoError(t, err)
	return p
}

// wait notes the end of a call that waits for what the stream has now.
func (p *promptly) wait(call func(*Stream, context.Context) error) {
	go func() { // ends with the Sender at the latest
		if call(p.stream, context.Background()) == nil {
			p.here.note("end of the wait")
		}
	}()
}

func (p *promptly) publish(t *testing.T, size int, count int) {
	messages := make([]string, count)
	for i := range messages {
		messages[i] = strings.Repeat("m", size)
	}
	_, _, err := p.stream.Publish(t.Context(), acktest.BatchOf(t, messages...), 0, 0)
	require.NoError(t, err)
	synctest.Wait()
}

func (p *promptly) announce() {
	p.fetched.Announce(2)
	synctest.Wait()
}

func (p *promptly) feed(t *testing.T) {
	p.announce()
	from, generation, ok, err := p.fetched.Next(t.Context())
	require.NoError(t, err)
	require.True(t, ok)
	p.fetched.Feed(generation, from, [][]byte{{1}})
	synctest.Wait()
}

// promptCases are the calls and frames that have an effect, and who hears of it.
var promptCases = map[string]struct {
	here    *peer // nil: one that says nothing
	prepare func(t *testing.T, p *promptly)
	act     func(t *testing.T, p *promptly)
	want    string // what is heard
	there   bool   // by the peer of the other Sender
}{
	"Dial":    {act: func(_ *testing.T, p *promptly) { p.from.Dial() }, want: "Hello"},
	"Changed": {act: func(_ *testing.T, p *promptly) { p.from.Dial() }, want: "change"},
	"a Ping": {
		prepare: func(_ *testing.T, p *promptly) { p.from.Dial() },
		act: func(t *testing.T, p *promptly) {
			p.here.say(t, &wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: 1}}})
		},
		want: "Pong",
	},
	"Publish": {here: &peer{credit: 10}, act: func(t *testing.T, p *promptly) { p.publish(t, 1, 1) }, want: "PublishFrame"},
	"a message that is too large for the peer": {
		here: &peer{credit: 10}, act: func(t *testing.T, p *promptly) { p.publish(t, 2*maxMessage, 1) }, want: "refusal",
	},
	"an ack": {
		here: &peer{credit: 10},
		prepare: func(t *testing.T, p *promptly) {
			p.publish(t, 1, 1)
			p.wait((*Stream).Drain)
		},
		act: func(t *testing.T, p *promptly) {
			p.here.ack(t, session.AckFrame{Handle: 1, Next: 2, Settled: []uint64{1, 1}})
		},
		want: "end of the wait",
	},
	"LeftBehind": {act: leaveBehind, want: "Revoke"},
	"LeftBehind, connected": {
		prepare: func(_ *testing.T, p *promptly) { p.from.Dial() }, act: leaveBehind, want: "Revoke",
	},
	"Announce": {act: func(_ *testing.T, p *promptly) { p.fetched.Announce(2) }, want: "Open"},
	"Feed": {
		here: &peer{credit: 10}, prepare: func(_ *testing.T, p *promptly) { p.announce() },
		act: func(t *testing.T, p *promptly) { p.feed(t) }, want: "PublishFrame",
	},
	"ConfirmRefused": {
		here: &peer{credit: 10, rejects: true}, prepare: func(t *testing.T, p *promptly) { p.feed(t) },
		act: func(_ *testing.T, p *promptly) { p.fetched.ConfirmRefused(1) }, want: "RejectSeen",
	},
	"Release": {
		here: &peer{credit: 10, settles: true}, prepare: func(t *testing.T, p *promptly) { p.feed(t) },
		act: func(_ *testing.T, p *promptly) { p.fetched.Release() }, want: "Release",
	},
	"Leave": {
		here: &peer{credit: 10}, prepare: func(t *testing.T, p *promptly) { p.feed(t) },
		act: func(_ *testing.T, p *promptly) { p.fetched.Leave() }, want: "Revoke",
	},
	"Stay": {
		prepare: func(_ *testing.T, p *promptly) {
			p.from.Dial()
			p.fetched.Leave()
			p.fetched.Announce(2)
		},
		act: func(_ *testing.T, p *promptly) { p.fetched.Stay() }, want: "Open",
	},
	"FetchedStream.MoveTo, where it was": {
		here: &peer{credit: 10, settles: true}, prepare: func(t *testing.T, p *promptly) { p.feed(t) },
		act: func(_ *testing.T, p *promptly) { p.fetched.MoveTo(p.to) }, want: "Release",
	},
	"FetchedStream.MoveTo, where it is": {
		prepare: func(_ *testing.T, p *promptly) { p.fetched.Announce(2) },
		act:     func(_ *testing.T, p *promptly) { p.fetched.MoveTo(p.to) }, want: "Open", there: true,
	},
	"End": {
		here: &peer{credit: 10, settles: true}, prepare: func(t *testing.T, p *promptly) { p.publish(t, 1, 1) },
		act: func(_ *testing.T, p *promptly) { p.stream.End() }, want: "Release",
	},
	"MoveTo of what was sent": {
		here: &peer{credit: 10}, prepare: func(t *testing.T, p *promptly) { p.publish(t, 1, 1) }, act: move, want: "Revoke",
	},
	"MoveTo of what was not sent, where it was": {
		prepare: func(t *testing.T, p *promptly) { p.publish(t, 1, 1) }, act: move, want: "Release",
	},
	"MoveTo of what was not sent, where it is": {
		prepare: func(t *testing.T, p *promptly) { p.publish(t, 1, 1) }, act: move, want: "PublishFrame", there: true,
	},
	"what comes back": {
		here:    &peer{credit: 10, returns: true},
		prepare: func(t *testing.T, p *promptly) { p.publish(t, 1, 1) }, act: move, want: "PublishFrame", there: true,
	},
	"what comes back for an address that is retired": {
		here: &peer{credit: 10, returns: true},
		prepare: func(t *testing.T, p *promptly) {
			p.publish(t, 1, 1)
			p.to.retired = true
		},
		act: move, want: "Open",
	},
	"MoveTo where it is": {
		here: &peer{credit: 10, returns: true},
		prepare: func(t *testing.T, p *promptly) {
			p.publish(t, 1, 1)
			p.from.mu.Lock()
			p.from.client.Leave(p.stream.out, time.Now())
			p.from.mu.Unlock()
			p.from.kick()
		},
		act: func(_ *testing.T, p *promptly) { p.stream.MoveTo(p.from) }, want: "Open",
	},
	"Divide": {
		here: &peer{credit: 1}, prepare: func(t *testing.T, p *promptly) { p.publish(t, 1, 3) },
		act: move, want: "PublishFrame", there: true,
	},
	"Divide of all that is left": {
		here: &peer{credit: 1},
		prepare: func(t *testing.T, p *promptly) {
			p.stream.cfg.Divide = nil
			p.publish(t, 1, 3)
			p.wait((*Stream).Drain)
			move(t, p)
			p.here.ack(t, session.AckFrame{Handle: 1, Next: 2, Settled: []uint64{1, 1}, Messages: 1, Bytes: 1000})
		},
		act: func(_ *testing.T, p *promptly) { p.stream.Divide(p.heir) }, want: "end of the wait",
	},
	"MoveTo of what is waited for": {
		prepare: func(t *testing.T, p *promptly) {
			p.publish(t, 1, 1)
			p.wait((*Stream).Drain)
		},
		act: move, want: "end of the wait",
	},
}

// Each call and each frame has its effect at once: where nothing wakes what writes, or moves streams, that waits for the
// next Tick, or for ever.
func TestSender_ActsAtOnce(t *testing.T) {
	for name, c := range promptCases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPromptly(t, cmp.Or(c.here, &peer{}))
				if c.prepare != nil {
					c.prepare(t, p)
				}
				synctest.Wait()
				at := p.here
				if c.there {
					at = p.there
				}
				before := at.times(c.want)
				c.act(t, p)
				synctest.Wait()
				require.Greater(t, at.times(c.want), before)
			})
		})
	}
}

// A move that fails, as its address is retired by then, is told to none.
func TestStream_TellsOfNoMoveThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPromptly(t, &peer{})
		p.publish(t, 1, 1)
		p.to.retired = true
		move(t, p)
		synctest.Wait()
		require.Same(t, p.from, p.stream.Sender())
		require.Zero(t, p.there.times("move"))
		p.to.retired = false
		move(t, p)
		require.Equal(t, 1, p.there.times("move"))
	})
}

// A Stream gives nothing to one at the same Sender, nor to one without TLS where it has that, nor away when it does not
// leave.
func TestStream_DividesOnlyWhereItMayGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPromptly(t, &peer{credit: 1})
		p.stream.cfg.Divide = nil
		beside := p.from.NewStream(StreamConfig{Topic: "t"})
		p.publish(t, 1, 3)
		require.Zero(t, p.stream.Divide(p.heir), "it stays")
		move(t, p)
		require.Zero(t, p.stream.Divide(beside), "at the same Sender")
		p.from.cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
		require.Zero(t, p.stream.Divide(p.heir), "without TLS")
		p.from.cfg.TLS = nil
		require.Equal(t, 2, p.stream.Divide(p.heir))
	})
}

func move(_ *testing.T, p *promptly) { p.stream.MoveTo(p.to) }

func leaveBehind(_ *testing.T, p *promptly) {
	p.from.LeftBehind(FetchConfig{Identity: p.from.cfg.Identity, Stream: 9, Topic: "t", Tenure: 2})
}

// What is waited for is looked after soon, though all was idle.
func TestSender_LooksSoonAfterWhatIsWaitedFor(t *testing.T) {
	for name, act := range map[string]func(p *promptly){
		"Publish": func(p *promptly) { _, _, _ = p.stream.Publish(context.Background(), &session.Batch{}, 0, 0) },
		"Drain":   func(p *promptly) { _ = p.stream.Drain(context.Background()) },
		"AwaitReceived": func(p *promptly) {
			p.stream.AwaitReceived(context.Background())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPromptly(t, &peer{})
				p.publish(t, 1, 1)
				p.from.cfg.Ticker.idle.Store(true)
				go act(p) // ends with the Sender
				synctest.Wait()
				require.False(t, p.from.cfg.Ticker.idle.Load())
			})
		})
	}
}
