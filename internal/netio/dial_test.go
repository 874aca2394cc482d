package netio

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// silence keeps attempts to connect to some addresses from getting an answer, until the test ends.
func silence(t *testing.T, d *Dialer, addresses ...string) (tried func() []string) {
	var mu sync.Mutex
	var all []string
	over := make(chan struct{})
	t.Cleanup(func() {
		mu.Lock() // attempts that go on have read the resolver before
		defer mu.Unlock()
		close(over)
	})
	d.Control = func(_, address string) error {
		host, _, err := net.SplitHostPort(address)
		mu.Lock()
		all = append(all, host)
		mu.Unlock()
		if err == nil && slices.Contains(addresses, host) {
			<-over
			return context.Canceled
		}
		return err
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func dial(t *testing.T, d *Dialer, address string, within time.Duration, hint DialHint) (host string, err error) {
	ctx, cancel := context.WithTimeout(WithDialHint(t.Context(), hint), within)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	host, _, err = net.SplitHostPort(conn.RemoteAddr().String())
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	return host, nil
}

// Three addresses of one family that do not answer cost a part of a second each, not the time of the dial.
func TestDialer_TriesTheNextAddressBesideASilentOne(t *testing.T) {
	testkit.ServeNames(t, "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
	_, port := testkit.ListenAt(t, "127.0.0.5")
	d := &Dialer{}
	tried := silence(t, d, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	begin := time.Now()
	host, err := dial(t, d, "orders.example:"+port, 30*time.Second, DialHint{})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.5", host)
	require.GreaterOrEqual(t, time.Since(begin), 3*attemptDelay, "each has time to answer")
	require.Less(t, time.Since(begin), 20*time.Second)
	require.Equal(t, []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}, tried())
}

// Where an address refuses the connection, the next one is tried at once.
func TestDialer_GoesOnAtOnceAfterARefusal(t *testing.T) {
	var names []string
	for i := range 31 {
		names = append(names, fmt.Sprintf("127.0.0.%d", i+2))
	}
	testkit.ServeNames(t, names...)
	_, port := testkit.ListenAt(t, names[30])
	begin := time.Now()
	host, err := dial(t, &Dialer{}, "orders.example:"+port, 30*time.Second, DialHint{})
	require.NoError(t, err)
	require.Equal(t, names[30], host)
	require.Less(t, time.Since(begin), 30*attemptDelay)

	testkit.ServeNames(t, names[:6]...)
	_, err = dial(t, &Dialer{}, "orders.example:"+port, 30*time.Second, DialHint{})
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	for _, name := range names[:6] {
		require.ErrorContains(t, err, name)
	}
}

// An address that got nowhere the last time is tried last, and the one before it earlier.
func TestDialer_TriesLastWhatIsToBeAvoided(t *testing.T) {
	testkit.ServeNames(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	_, port := testkit.ListenAt(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	avoid := []string{}
	for _, want := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.2"} {
		host, err := dial(t, &Dialer{}, "orders.example:"+port, 30*time.Second, DialHint{Avoid: avoid})
		require.NoError(t, err)
		require.Equal(t, want, host)
		avoid = append(avoid, net.JoinHostPort(host, port))
	}
}

// The families take turns, so that one of which every address is silent costs one attempt.
func TestDialer_AlternatesTheFamilies(t *testing.T) {
	var ips []netip.Addr
	for _, a := range []string{"::1", "::2", "::3", "10.0.0.1", "::ffff:10.0.0.2"} {
		ips = append(ips, netip.MustParseAddr(a))
	}
	var got []string
	for _, ip := range interleave(ips) {
		got = append(got, ip.String())
	}
	require.Equal(t, []string{"::1", "10.0.0.1", "::2", "10.0.0.2", "::3"}, got)
}

// A dial returns in its time and says what it waited for, though every address is silent, or the resolver is.
func TestDialer_EndsInItsTime(t *testing.T) {
	testkit.ServeNames(t, "127.0.0.2", "127.0.0.3")
	d := &Dialer{}
	tried := silence(t, d, "127.0.0.2", "127.0.0.3")
	_, err := dial(t, d, "orders.example:1", 10*attemptDelay, DialHint{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "127.0.0.3")
	require.Equal(t, []string{"127.0.0.2", "127.0.0.3"}, tried())

	testkit.Resolve(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	var stages []string
	_, err = dial(t, d, "orders.example:1", 50*time.Millisecond, DialHint{Stage: func(s string) { stages = append(stages, s) }})
	require.ErrorContains(t, err, "lookup orders.example")
	require.Equal(t, []string{"resolving orders.example"}, stages)
}

// Each address is judged: one that is denied keeps none of the others from being connected to, and is the reason only
// where all are denied.
func TestDialAllow_JudgesEachAddressOfAName(t *testing.T) {
	testkit.ServeNames(t, "127.0.0.2", "127.0.0.3")
	listeners, port := testkit.ListenAt(t, "127.0.0.2", "127.0.0.3")
	allow := DialAllow{Prefixes: prefixes("127.0.0.3/32")}
	guarded := allow.Guard(nil)
	conn, err := guarded(t.Context(), "tcp", "orders.example:"+port)
	require.NoError(t, err)
	require.Equal(t, listeners[1].Addr(), conn.RemoteAddr())
	require.NoError(t, conn.Close())

	require.NoError(t, listeners[1].Close())
	_, err = guarded(t.Context(), "tcp", "orders.example:"+port)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NotErrorIs(t, err, ErrDialDenied)

	allow.Prefixes = prefixes("10.0.0.0/8")
	_, err = guarded(t.Context(), "tcp", "orders.example:"+port)
	require.ErrorIs(t, err, ErrDialDenied)
}
