package components

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/requestreply"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cqrsx"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

type add struct{ A, B int }
type sum struct{ Sum int }

// replying runs a handler of add behind a Replier.
func replying(t *testing.T, p *pair, cfg cqrsx.ReplierConfig, handle func(context.Context, *add) (sum, error)) {
	t.Helper()
	cfg.Manager = p.listens
	replier, err := cqrsx.NewReplier[sum](cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = replier.Close() })
	r := newRouter(t)
	at := p.at()
	at.MaxInFlight = 16
	at.NackResendSleep = time.Millisecond
	commands, err := cqrs.NewCommandProcessorWithConfig(r, cqrsx.CommandProcessorConfig(at, nil, nil))
	require.NoError(t, err)
	require.NoError(t, commands.AddHandlers(requestreply.NewCommandHandlerWithResult("add", replier, handle)))
	run(t, r)
}

func (p *pair) requester(t *testing.T, change func(*cqrsx.RequesterConfig)) *cqrsx.Requester[sum] {
	t.Helper()
	cfg := cqrsx.RequesterConfig{Manager: p.sends, Publisher: p.publisher(t), Timeout: patience}
	if change != nil {
		change(&cfg)
	}
	q, err := cqrsx.NewRequester[sum](cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func adds(_ context.Context, c *add) (sum, error) { return sum{c.A + c.B}, nil }

// What a command's metadata holds comes from a peer. None of it stops the replier, and none is executed twice.
func TestReplier_HostileAddresses(t *testing.T) {
	listens, address := newListening(t, buffstreams.ManagerConfig{
		DialAllow: &pool.DialAllow{Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
	})
	p := &pair{listens: listens, sends: newManager(t, buffstreams.ManagerConfig{}), address: address}
	var calls atomic.Int64
	replying(t, p, cqrsx.ReplierConfig{}, func(_ context.Context, c *add) (sum, error) {
		calls.Add(1)
		return sum{c.A + c.B}, nil
	})
	bus, err := cqrs.NewCommandBusWithConfig(p.publisher(t), cqrsx.CommandBusConfig(nil, nil))
	require.NoError(t, err)
	hostile := map[string]string{ // address: operation
		"":                          "1", // not from a Requester
		"no address":                "2",
		"10.1.2.3:80":               "3", // not allowed to be dialed
		"gopher://127.0.0.1:1":      "4",
		"127.0.0.1:1":               strings.Repeat("x", 2000), // too long a name
		"\xff\xfe:1":                "6",
		"127.0.0.1:2/a/../../other": "7", // nothing listens there
		"unix:///nowhere":           "8",
		"127.0.0.1:3":               "", // no operation
	}
	for replyTo, operation := range hostile {
		msg, err := cqrsx.JSON.Marshal(&add{1, 2})
		require.NoError(t, err)
		msg.Metadata.Set(cqrsx.ReplyToKey, replyTo)
		msg.Metadata.Set(requestreply.OperationIDMetadataKey, operation)
		require.NoError(t, p.publisher(t).Publish("commands.add", msg))
	}
	require.NoError(t, bus.Send(t.Context(), &add{1, 2})) // nor is this one
	got, err := p.requester(t, nil).Ask(t.Context(), &add{3, 4})
	require.NoError(t, err)
	require.Equal(t, sum{7}, got)
	require.Eventually(t, func() bool { return calls.Load() == int64(len(hostile))+2 }, patience, time.Millisecond)
	time.Sleep(100 * time.Millisecond) // real time: that nothing comes again
	require.EqualValues(t, len(hostile)+2, calls.Load())
}

func TestRequester_AsksFromManyGoroutines(t *testing.T) {
	const requests, concurrent = 500, 16
	p := newPair(t)
	var calls atomic.Int64
	replying(t, p, cqrsx.ReplierConfig{}, func(ctx context.Context, c *add) (sum, error) { calls.Add(1); return adds(ctx, c) })
	q := p.requester(t, nil)
	var next atomic.Int64
	failed := make(chan error, requests)
	var wg sync.WaitGroup
	for range concurrent {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= requests; i = int(next.Add(1)) {
				got, err := q.Ask(context.Background(), &add{i, 1})
				if err == nil && got.Sum != i+1 {
					err = errors.New("a wrong answer")
				}
				failed <- err
			}
		})
	}
	wg.Wait()
	for range requests {
		require.NoError(t, <-failed)
	}
	require.EqualValues(t, requests, calls.Load(), "each command runs once")
}

// A handler's error is the reply: its command is done.
func TestReplier_AHandlersErrorIsTheReply(t *testing.T) {
	p := newPair(t)
	var calls atomic.Int64
	replying(t, p, cqrsx.ReplierConfig{}, func(context.Context, *add) (sum, error) { calls.Add(1); return sum{}, errWanted })
	_, err := p.requester(t, nil).Ask(t.Context(), &add{1, 2})
	var refused requestreply.CommandHandlerError
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "wanted")
	_, err = p.requester(t, nil).Ask(t.Context(), &add{1, 2})
	require.Error(t, err)
	require.EqualValues(t, 2, calls.Load())
}

// With NackCommandErrors a command comes again until it succeeds; the requester has the first reply.
func TestReplier_NackCommandErrors(t *testing.T) {
	p := newPair(t)
	var calls atomic.Int64
	replying(t, p, cqrsx.ReplierConfig{NackCommandErrors: true}, func(ctx context.Context, c *add) (sum, error) {
		if calls.Add(1) < 3 {
			return sum{}, errWanted
		}
		return adds(ctx, c)
	})
	_, err := p.requester(t, nil).Ask(t.Context(), &add{1, 2})
	require.ErrorContains(t, err, "wanted")
	require.Eventually(t, func() bool { return calls.Load() == 3 }, patience, time.Millisecond)
}

// A late reply is dropped and told; its command is not executed again, and those behind it do not wait for long.
func TestReplier_LateReply(t *testing.T) {
	for name, leave := range map[string]func(q *cqrsx.Requester[sum], m *buffstreams.Manager){
		"given up": func(*cqrsx.Requester[sum], *buffstreams.Manager) {},
		"gone":     func(q *cqrsx.Requester[sum], m *buffstreams.Manager) { _ = q.Close(); _ = m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			var calls tally
			let := make(chan struct{})
			dropped := make(chan string, 10)
			replying(t, p, cqrsx.ReplierConfig{OnDropped: func(topic string, _ []byte, _ error) { dropped <- topic }},
				func(ctx context.Context, c *add) (sum, error) {
					if c.A == 0 {
						calls.add("slow")
						<-let
					}
					return adds(ctx, c)
				})
			requests := newManager(t, buffstreams.ManagerConfig{})
			q := p.requester(t, func(c *cqrsx.RequesterConfig) { c.Manager, c.Timeout = requests, 2*time.Second }) // in which it is asked
			_, err := q.Ask(t.Context(), &add{0, 1})
			var late requestreply.ReplyTimeoutError
			require.ErrorAs(t, err, &late)
			leave(q, requests)
			close(let)
			got, err := p.requester(t, nil).Ask(t.Context(), &add{3, 4})
			require.NoError(t, err)
			require.Equal(t, sum{7}, got)
			require.Contains(t, receive(t, dropped), "reply-")
			require.Equal(t, []string{"slow"}, calls.all())
		})
	}
}

func TestRequester_ContextEndsTheWait(t *testing.T) {
	p := newPair(t)
	block := make(chan struct{})
	replying(t, p, cqrsx.ReplierConfig{}, func(ctx context.Context, c *add) (sum, error) { <-block; return adds(ctx, c) })
	defer close(block)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := p.requester(t, nil).Ask(ctx, &add{1, 2})
	require.Error(t, err)
}

func TestRequester_CloseEndsTheWait(t *testing.T) {
	p := newPair(t)
	begun, block := make(chan struct{}), make(chan struct{})
	replying(t, p, cqrsx.ReplierConfig{}, func(ctx context.Context, c *add) (sum, error) { close(begun); <-block; return adds(ctx, c) })
	defer close(block)
	q := p.requester(t, nil)
	asked := make(chan error, 1)
	go func() { _, err := q.Ask(context.Background(), &add{1, 2}); asked <- err }() // Ends with Close.
	receive(t, begun)
	require.NoError(t, q.Close())
	require.Error(t, receive(t, asked))
}

// Requests leave nothing behind at either end: no goroutine, no descriptor.
func TestRequester_LeavesNothing(t *testing.T) {
	testkit.CheckLeaks(t)
	p := newPair(t)
	replying(t, p, cqrsx.ReplierConfig{}, adds)
	q := p.requester(t, nil)
	for i := range 100 {
		_, err := q.Ask(t.Context(), &add{i, 1})
		require.NoError(t, err)
	}
}

// Replies come by a Unix socket as well, each on a topic of its own.
func TestRequester_OverAUnixSocket(t *testing.T) {
	p := newPair(t)
	replying(t, p, cqrsx.ReplierConfig{}, adds)
	at := "unix://" + filepath.Join(t.TempDir(), "replies.sock")
	q := p.requester(t, func(c *cqrsx.RequesterConfig) { c.ListenAddress = at })
	require.Equal(t, at, q.Address())
	for i := range 3 {
		got, err := q.Ask(t.Context(), &add{i, 1})
		require.NoError(t, err)
		require.Equal(t, sum{i + 1}, got)
	}
	q = p.requester(t, func(c *cqrsx.RequesterConfig) { c.ListenAddress, c.AdvertisedAddress = at+".2", "unix:///elsewhere" })
	require.Equal(t, "unix:///elsewhere", q.Address())
}

func TestRequester_AdvertisedAddress(t *testing.T) {
	open := buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Insecure: true}}
	for _, c := range []struct{ listen, advertised, want string }{
		{"", "", "127.0.0.1:PORT"},
		{"127.0.0.1:0", "localhost", "localhost:PORT"},
		{":0", "127.0.0.1", "127.0.0.1:PORT"},
		{"0.0.0.0:0", "tls://example.org", "tls://example.org:PORT"},
		{":0", "example.org:99", "example.org:99"},
		{":0", "::1", "[::1]:PORT"},
		{":0", "", ""},
	} {
		q, err := cqrsx.NewRequester[sum](cqrsx.RequesterConfig{
			Manager: newManager(t, open), Publisher: newPair(t).publisher(t), ListenAddress: c.listen, AdvertisedAddress: c.advertised,
		}, nil)
		if c.want == "" {
			require.ErrorContains(t, err, "AdvertisedAddress")
			continue
		}
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, q.Close()) })
		pattern := "^" + strings.NewReplacer("PORT", "[0-9]+", "[", `\[`, "]", `\]`).Replace(strings.ReplaceAll(c.want, "[0-9]+", "PORT")) + "$"
		require.Regexp(t, pattern, q.Address())
	}
	_, err := cqrsx.NewRequester[sum](cqrsx.RequesterConfig{Manager: newManager(t, open), Timeout: -1}, nil)
	require.ErrorContains(t, err, "Timeout")
}

// Watermill's own functions go with it: several replies to one command, from several groups of handlers.
func TestRequester_SeveralReplies(t *testing.T) {
	p := newPair(t)
	r := newRouter(t)
	for _, group := range []string{"a", "b"} {
		replier, err := cqrsx.NewReplier[sum](cqrsx.ReplierConfig{Manager: p.listens}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = replier.Close() })
		commands, err := cqrs.NewCommandProcessorWithConfig(r, cqrsx.CommandProcessorConfig(p.at(), nil, watermill.NopLogger{}))
		require.NoError(t, err)
		require.NoError(t, commands.AddHandlers(requestreply.NewCommandHandlerWithResult(group, replier, adds)))
	}
	run(t, r)
	q := p.requester(t, nil)
	replies, cancel, err := requestreply.SendWithReplies[sum](t.Context(), q.Bus(), q.Backend(), &add{1, 2})
	require.NoError(t, err)
	for range 2 {
		require.Equal(t, sum{3}, receive(t, replies).HandlerResult)
	}
	cancel()
	for range replies { // closes
	}
}
