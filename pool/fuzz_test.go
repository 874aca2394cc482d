package pool

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// FuzzPlainListener feeds bytes to a listener of plain messages; what its callback gets is what a Reader makes of them.
func FuzzPlainListener(f *testing.F) {
	codec, err := framing.NewBuffStreams(64)
	require.NoError(f, err)
	good, err := codec.AppendHeader(nil, 3)
	require.NoError(f, err)
	f.Add(append(append(bytes.Clone(good), "abc"...), good...))
	f.Add([]byte("\x82\x40\x00"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00"))
	pipes := testkit.NewPipeListener()
	var got [][]byte // of the connection at hand: there is one at a time
	l, err := ListenTCP(ListenerConfig{
		Address: "127.0.0.1:1", MaxMessageSize: 64, Listen: pipes.Listen, MaxEmptyMessages: Unlimited,
		Callback: func(b []byte) error { got = append(got, bytes.Clone(b)); return nil },
	})
	require.NoError(f, err)
	require.NoError(f, l.StartListeningAsync())
	f.Cleanup(func() { _ = l.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		got = nil
		conn := testkit.NewScriptedConn(data)
		pipes.Accepts <- conn
		conn.AwaitClose(t)
		r := framing.NewReader(bytes.NewReader(data), codec)
		i := 0
		for ; ; i++ {
			want, err := r.Next()
			if err != nil {
				break
			}
			require.Less(t, i, len(got))
			require.Equal(t, string(want), string(got[i]))
		}
		require.Len(t, got, i)
	})
}
