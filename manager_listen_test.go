package buffstreams

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// exposed is a listener that others can reach, as it says.
type exposed struct {
	net.Listener
	closed bool
}

func (e *exposed) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func (e *exposed) Close() error {
	e.closed = true
	return e.Listener.Close()
}

// A listener that is refused, as others can reach it, gives its port back; and an address at which a process could not listen can
// be listened at later.
func TestManager_ListensAgainAfterAFailure(t *testing.T) {
	testkit.CheckLeaks(t)
	var given *exposed
	inUse := errors.New("in use")
	for _, failure := range []error{inUse, ErrInsecureAddress} {
		failing := true
		m := newTestManager(t, ManagerConfig{Listen: func(network, address string) (net.Listener, error) {
			if failing && errors.Is(failure, inUse) {
				return nil, failure
			}
			ln, err := net.Listen(network, address)
			if err == nil && failing {
				given = &exposed{Listener: ln}
				return given, nil
			}
			return ln, err
		}})
		for _, listen := range []func() (listener, error){
			func() (listener, error) { return m.listen(anyPort) },
			func() (listener, error) {
				return m.listenPlain(netio.Target{Network: "tcp", Address: "127.0.0.2:0"}, 0)
			},
		} {
			failing = true
			_, err := listen()
			require.ErrorIs(t, err, failure)
			if !errors.Is(failure, inUse) {
				require.True(t, given.closed)
			}
			failing = false
			l, err := listen()
			require.NoError(t, err)
			require.NotNil(t, l)
		}
		require.NoError(t, m.Close())
	}
}

// The certificate of a peer must have the name that its route says, else that of the host that is dialed.
func TestManager_ExpectsTheServerNameOfTheRoute(t *testing.T) {
	m := newTestManager(t, ManagerConfig{Acked: AckedConfig{ClientTLS: &tls.Config{MinVersion: tls.VersionTLS13}}})
	for name, target := range map[string]netio.Target{
		"orders.example": {Network: "tcp", Address: "10.0.0.1:5031", TLS: true, ServerName: "orders.example"},
		"10.0.0.1":       {Network: "tcp", Address: "10.0.0.1:5031", TLS: true},
	} {
		config, err := m.clientTLS(target)
		require.NoError(t, err)
		require.Equal(t, name, config.ServerName)
	}
	config, err := m.clientTLS(netio.Target{Network: "tcp", Address: "10.0.0.1:5031", ServerName: "orders.example"})
	require.NoError(t, err)
	require.Nil(t, config)
}

// A change of an address wakes all that wait for one.
func TestChanges_WakeAllThatWait(t *testing.T) {
	var c changes
	c.signal()
	for range 3 {
		first, second := c.wait(), c.wait()
		require.False(t, isClosed(first))
		c.signal()
		require.True(t, isClosed(first))
		require.True(t, isClosed(second))
	}
	require.EqualValues(t, 4, c.count.Load())
}
