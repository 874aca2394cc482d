package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func TestGuard_RefusesIfAHookFails(t *testing.T) {
	g := Guard{timeout: time.Second, logger: testkit.NewLog(), address: "here", quiet: &netio.QuietBy{}}
	peer := Peer{Address: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}}
	for _, c := range []struct {
		name string
		hook error
		code wire.Code
	}{
		{"refusal", errors.New("no"), wire.Code_CODE_UNAUTHENTICATED},
		{"no principal", nil, wire.Code_CODE_UNAUTHENTICATED},
		{"the hook cannot tell now", fmt.Errorf("directory is down: %w", ErrUnavailable), wire.Code_CODE_LIMIT},
	} {
		g.authenticate = func(context.Context, Peer) (string, error) { return "", c.hook }
		_, refused := g.Admit(context.Background(), peer)
		require.Equal(t, c.code, session.CodeOf(refused), c.name)
		require.NotContains(t, refused.Reason, "directory", "a stranger does not learn why")
	}
	g.authenticate = func(context.Context, Peer) (string, error) { panic("oops") }
	principal, refused := g.Admit(context.Background(), peer)
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_UNAUTHENTICATED, session.CodeOf(refused))
	require.Empty(t, principal)

	access := Access{Principal: "p", Topic: "t", Address: peer.Address}
	g.authorize = func(context.Context, Access) error { panic("oops") }
	refused = g.Allow(context.Background(), access)
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_FORBIDDEN, session.CodeOf(refused))
	g.authorize = func(context.Context, Access) error { return ErrUnavailable }
	require.Equal(t, wire.Code_CODE_LIMIT, session.CodeOf(g.Allow(context.Background(), access)))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	g.authorize = func(ctx context.Context, _ Access) error { return ctx.Err() }
	require.Equal(t, wire.Code_CODE_LIMIT, session.CodeOf(g.Allow(ended, access)))
	g.authorize = func(_ context.Context, a Access) error {
		require.Equal(t, access, a)
		return nil
	}
	require.Nil(t, g.Allow(context.Background(), access))
}

// With authentication an id belongs to its principal: the right secret is not enough.
func TestReceiver_BindsAPublisherToItsPrincipal(t *testing.T) {
	r := listen(t, Config{})
	open := func(epoch uint64) *wire.Open {
		return &wire.Open{Publisher: make([]byte, 16), Secret: make([]byte, 16), Epoch: epoch, Stream: 1, Topic: "a", Base: 1}
	}
	s, _, refused := r.open(open(1), "alice")
	require.Nil(t, refused)
	for _, epoch := range []uint64{1, 9} {
		_, _, refused = r.open(open(epoch), "bob")
		require.Equal(t, wire.Code_CODE_FENCED, session.CodeOf(refused))
	}
	again, _, refused := r.open(open(1), "alice") // the stranger's epoch has moved nothing
	require.Nil(t, refused)
	require.Same(t, s, again)
}
