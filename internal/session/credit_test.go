package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A Want must not overtake the messages that were sent with the credit it gives back.
func TestWantFollowsTheMessagesThatUsedTheCredit(t *testing.T) {
	p := newPair(t, roomy, smallRoom)
	p.remote.manual = true
	p.connect()
	p.enqueue("a", many(10)...)
	p.flow()
	s := p.remote.stream("a")
	p.remote.serve()
	p.flow()
	require.Len(t, s.held, 4, "the window has room for four; the rest waits")
	for next := uint64(1); next <= 10; next++ {
		p.remote.settle(s, next)
		p.remote.serve()
		p.flow()
	}
	require.Empty(t, s.held)
	require.Zero(t, p.client.Pending())
}
