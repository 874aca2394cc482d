package sender

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// A Sender keeps hold of no message that was written, small or large, also where the socket is wrapped: the garbage
// collector may have them.
func TestSender_HoldsNothingThatWasWritten(t *testing.T) {
	dial, accept := pipe(t)
	s := start(t, Config{Dial: dial})
	_, err := publish(t, s)
	require.NoError(t, err)
	_, done := listener(t, accept(), true, true)
	require.NoError(t, s.Drain(t.Context(), "a"))
	s.Close()
	<-done
	require.NotZero(t, cap(s.segments))
	for _, segment := range s.segments[:cap(s.segments)] {
		require.Zero(t, segment)
	}

	codec, err := session.NewCodec(1 << 20)
	require.NoError(t, err)
	large := session.Segment{Handle: 1, First: 1, Count: 1, Body: make([]byte, 2*largeBody)}
	conn := testkit.NewScriptedConn(nil)
	require.NoError(t, s.write(conn, session.Encoder{Codec: codec}, nil, []session.Segment{large, large}))
	require.Greater(t, len(conn.Written()), 4*largeBody)
	require.NotZero(t, cap(s.parts))
	for _, part := range s.parts[:cap(s.parts)] {
		require.Nil(t, part)
	}
}

// Each event is told once, however often there are others.
func TestSender_TellsEachEventOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told [3]atomic.Int32
		s := start(t, Config{Hooks: hook.NewSet([]hooks.Hook{struct{}{}}, testkit.NewLog())})
		for i := range told {
			s.Tell(func(*hook.Set) { told[i].Add(1) })
			synctest.Wait()
		}
		for i := range told {
			require.EqualValues(t, 1, told[i].Load())
		}
	})
}

// A message that came back was withdrawn, and is not reported as one that did not reach its level as well: it would be
// published twice.
func TestPublication_WhatCameBackIsNotLacking(t *testing.T) {
	p := publication{sender: start(t, Config{})}
	waiter := func(at int, first, last uint64, err error) *session.Waiter {
		w := &session.Waiter{At: at, First: first, Last: last, Err: err, Done: make(chan struct{}, 1)}
		w.Lacking = []session.Range{{First: first, Last: last}}
		w.Done <- struct{}{}
		return w
	}
	_, lacking, err := p.confirm(t.Context(), []*session.Waiter{
		waiter(0, 10, 12, session.ErrWithdrawn), waiter(3, 20, 21, ErrClosed),
	}, false)
	require.ErrorIs(t, err, ErrClosed)
	require.Equal(t, []session.Range{{First: 0, Last: 2}}, p.back)
	require.Equal(t, []session.Range{{First: 3, Last: 4}}, lacking)
}

// A refusal is told to the owners, or to Config.Refused where none answers for it, and logged, but where its publisher logs
// what becomes of it.
func TestSender_TellsARefusalToItsOwners(t *testing.T) {
	log, told := testkit.NewLog(), ""
	s := start(t, Config{Logger: log, Refused: func(session.Refused) { told += "config " }})
	refused := session.Refused{Topic: "a", Err: session.NewPeerError(wire.Code_CODE_FAILED, "no")}
	s.report(refused, nil)
	require.Equal(t, "Message refused by the peer", log.Next(t, "error").Msg)
	refused.Ephemeral = true
	for _, answers := range []bool{true, false} {
		s.report(refused, map[any]func(session.Refused) bool{1: func(session.Refused) bool {
			told += "owner "
			return answers
		}})
	}
	require.Empty(t, log.Lines)
	require.Equal(t, "config owner owner config ", told)
}
