package route

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Callers share a lookup, and one that gives up leaves it to the others. When all have, it is cancelled, and the next caller has
// one of its own, though the first has not ended yet.
func TestShared_ALookupIsForThoseThatWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shared
		begun, cancelled := 0, 0
		slow := func(ctx context.Context) (Route, error) {
			begun++
			<-ctx.Done()
			cancelled++
			time.Sleep(time.Second) // it takes a while to heed that
			return Route{}, ctx.Err()
		}
		var leave []context.CancelFunc
		gone := make(chan error, 2)
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			leave = append(leave, cancel)
			go func() { // ends with ctx
				_, err := s.do(ctx, slow)
				gone <- err
			}()
			synctest.Wait() // the first of them begins the lookup
		}
		leave[0]()
		require.ErrorIs(t, <-gone, context.Canceled)
		synctest.Wait()
		require.Equal(t, []int{1, 0}, []int{begun, cancelled})
		leave[1]()
		require.ErrorIs(t, <-gone, context.Canceled)
		synctest.Wait()
		require.Equal(t, []int{1, 1}, []int{begun, cancelled})

		got, err := s.do(t.Context(), func(context.Context) (Route, error) { return Route{Name: "next"}, nil })
		require.NoError(t, err)
		require.Equal(t, "next", got.Name)
		time.Sleep(2 * time.Second) // until the first has ended
	})
}

// Callers of one lookup, and those that get its result a little later, can change what they have.
func TestShared_NoCallerHasAnothersMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shared
		answer, lookups := make(chan struct{}), 0
		found := func() Route {
			return Route{Addresses: []string{"a:1"}, Attributes: map[string]Attributes{"a:1": {Weight: 1}}}
		}
		lookUp := func(context.Context) (Route, error) {
			lookups++
			<-answer
			return found(), nil
		}
		got := make(chan Route, 3)
		call := func() {
			r, err := s.do(t.Context(), lookUp)
			if err != nil {
				t.Error(err)
			}
			got <- r
		}
		go call() // ends with answer
		go call() // so does this one
		synctest.Wait()
		close(answer)
		synctest.Wait()
		for range 2 {
			call()
			for range len(got) {
				r := <-got
				require.Equal(t, found(), r)
				r.Addresses[0], r.Attributes["a:1"] = "b:1", Attributes{}
			}
		}
		require.Equal(t, 1, lookups)
		time.Sleep(reuseFor)
		call()
		require.Equal(t, 2, lookups, "it is for those that come at about the same time")
	})
}

// An error is no result that later callers get, and a lookup has an end though its callers have none.
func TestShared_ErrorsAreForThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shared
		began, lookups := time.Now(), 0
		for range 2 {
			_, err := s.do(context.Background(), func(ctx context.Context) (Route, error) {
				lookups++
				<-ctx.Done()
				return Route{}, ctx.Err()
			})
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.Equal(t, 2, lookups)
		require.Equal(t, 2*lookupTimeout, time.Since(began))
	})
}

// The end of a lookup that its callers have left, and of the wait for it, leave the next one to those that come.
func TestShared_ALookupThatWasLeftTakesNoOthersPlace(t *testing.T) {
	next := &call{}
	for name, end := range map[string]func(s *shared, left *call){
		"the lookup": func(s *shared, left *call) {
			s.run(t.Context(), left, func(context.Context) (Route, error) { return Route{}, context.Canceled })
		},
		"the wait": (*shared).leave,
	} {
		s, left := &shared{call: next}, &call{cancel: func() {}, done: make(chan struct{}), waiting: 1}
		end(s, left)
		require.Same(t, next, s.call, name)
		s.call = left
		left.done = make(chan struct{})
		end(s, left)
		require.Nil(t, s.call, name)
	}
}

// What the DNS says of a lookup that was out of time stays as it is; any other end of its time is told with what was looked up.
func TestUnanswered_SaysWhatWasLookedUp(t *testing.T) {
	said := &net.DNSError{Err: "no such host", Name: "orders.test", UnwrapErr: context.DeadlineExceeded}
	require.Same(t, said, unanswered(said, "other"))
	require.Equal(t, context.Canceled, unanswered(context.Canceled, "orders.test"))
	var failed *net.DNSError
	require.ErrorAs(t, unanswered(context.DeadlineExceeded, "orders.test"), &failed)
	require.Equal(t, "orders.test", failed.Name)
	require.True(t, failed.Timeout())
	require.ErrorIs(t, failed, context.DeadlineExceeded)
}
