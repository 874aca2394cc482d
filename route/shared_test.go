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
		}
		synctest.Wait()
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

// What the DNS says of a lookup that was out of time stays as it is; any other end of its time is told with what was looked up.
func TestUnanswered_SaysWhatWasLookedUp(t *testing.T) {
	said := &net.DNSError{Err: "no such host", Name: "orders.test", UnwrapErr: context.DeadlineExceeded}
	require.Same(t, said, unanswered(said, "other"))
	require.Equal(t, context.Canceled, unanswered(context.Canceled, "orders.test"))
	var failed *net.DNSError
	require.ErrorAs(t, unanswered(context.DeadlineExceeded, "orders.test"), &failed)
	require.Equal(t, "orders.test", failed.Name)
}
