package buffstreams

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A PubSub whose Publisher cannot be made leaves nothing behind: its address is free.
func TestPubSub_ThatCannotBeMadeListensNoMore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	_, err := NewPubSub(PubSubConfig{Address: "unix://" + path, Publisher: PublisherConfig{MaxMessageSize: 1 << 30}}, nil)
	require.ErrorContains(t, err, "MaxMessageSize")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}
