package buffstreams

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// gated is an OnFailure that lets one call at a time through.
type gated struct {
	open chan struct{}
	told []string // the topics, in order
}

func (g *gated) OnFailure(topic string, _ []byte, _ error) {
	<-g.open
	g.told = append(g.told, topic)
}

// The bound is one of what waits: what was told of counts no more, and one message always has room, however large.
func TestFailureQueue_BoundsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, g := testkit.NewLog(), &gated{open: make(chan struct{})}
		q := failureQueue{hook: g.OnFailure, logger: log}
		half, whole := make([]byte, maxQueuedFailures/2), make([]byte, maxQueuedFailures+1)
		var want []string
		for range 3 {
			for _, one := range []struct {
				topic   string
				encoded []byte
			}{{"in the hook", whole}, {"first", half}, {"second", half}, {"too much", half}} {
				q.add(one.topic, one.encoded, errBlocked)
				synctest.Wait() // the hook has the first
			}
			require.Equal(t, "OnFailure is too slow: a message that failed was not given to it", log.Next(t, "error").Msg)
			want = append(want, "in the hook", "first", "second")
			for range 3 {
				g.open <- struct{}{}
			}
			var dropped *UndeliveredError
			require.ErrorAs(t, q.await(t.Context(), "OnFailure"), &dropped)
			require.Equal(t, 1, dropped.Count)
			require.Equal(t, want, g.told)
		}
		require.Empty(t, log.Lines)
	})
}

// A message that a store keeps leaves it when the hook has returned, if by a panic; not when it could not be read.
func TestFailureQueue_StoredMessageIsKeptUntilItWasTold(t *testing.T) {
	for name, c := range map[string]struct {
		load        func() ([]byte, bool, error)
		panics      bool
		hooked, out int
	}{
		"told":              {func() ([]byte, bool, error) { return nil, true, nil }, false, 1, 1},
		"by a panic":        {func() ([]byte, bool, error) { return nil, true, nil }, true, 1, 1},
		"told of before":    {func() ([]byte, bool, error) { return nil, false, nil }, false, 0, 1},
		"it cannot be read": {func() ([]byte, bool, error) { return nil, true, errors.New("broken") }, false, 0, 0},
	} {
		hooked, out := 0, 0
		q := failureQueue{logger: testkit.NewLog(), hook: func(string, []byte, error) {
			if hooked++; c.panics {
				panic("oops")
			}
		}}
		q.addStored(failure{load: c.load, told: func() { out++ }})
		require.NoError(t, q.await(t.Context(), "OnFailure"), name)
		require.Equal(t, []int{c.hooked, c.out}, []int{hooked, out}, name)
	}
}

// A wait for a hook that does not return says how many calls are left: the one under way and those that wait.
func TestFailureQueue_SaysHowManyCallsAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{open: make(chan struct{})}
		q := failureQueue{hook: g.OnFailure, logger: testkit.NewLog()}
		for range 3 {
			q.add("a", nil, errBlocked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorContains(t, q.await(ctx, "Some.OnFailure"), "Some.OnFailure has not returned in time: 3 calls are left")
		require.Equal(t, time.Second+failureGrace, time.Since(began))
		close(g.open)
		require.NoError(t, q.await(t.Context(), "OnFailure"))
	})
}

// TestFailureQueue_KeepsNothingThatWasTold: what waits is bounded, and what was told of would come on top of that.
func TestFailureQueue_KeepsNothingThatWasTold(t *testing.T) {
	told, goOn := make(chan struct{}), make(chan struct{})
	q := failureQueue{logger: testkit.NewLog(), hook: func(string, []byte, error) { told <- struct{}{}; <-goOn }}
	add := func() weak.Pointer[byte] { // so that this test keeps nothing either
		encoded := make([]byte, 1<<20)
		q.add("a", encoded, errBlocked)
		return weak.Make(&encoded[0])
	}
	add()
	<-told // the others wait
	second := add()
	for range 3 {
		add()
	}
	goOn <- struct{}{}
	<-told
	require.NotNil(t, second.Value())
	goOn <- struct{}{}
	<-told // of the third
	runtime.GC()
	require.Nil(t, second.Value())
	close(goOn)
	<-told
	<-told
	require.NoError(t, q.await(t.Context(), "OnFailure"))
	require.Zero(t, q.bytes)
}
