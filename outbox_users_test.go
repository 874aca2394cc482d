package buffstreams

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// sharer keeps what publishers share, or does something senseless.
type sharer struct {
	store.Outbox
	kept      any
	senseless func() any
}

func (s *sharer) Shared(fresh func() any) any {
	if s.senseless != nil {
		return s.senseless()
	}
	if s.kept == nil {
		s.kept = fresh()
	}
	return s.kept
}

// The outbox owns what its publishers know of each other: it ends with the outbox, and another has its own.
func TestOutboxUsers_BelongToTheirOutbox(t *testing.T) {
	one, other := &sharer{}, &sharer{}
	kept := usersOf(one)
	require.Same(t, kept, usersOf(one))
	require.NotSame(t, usersOf(one), usersOf(other))
	p := &Publisher{}
	u := joinOutboxUsers(p, one)
	require.Equal(t, []*Publisher{p}, usersOf(one).publishers)
	u.leave(p)
	require.Empty(t, usersOf(one).publishers)
}

// An outbox that shares nothing, or nonsense, has each of its publishers on its own.
func TestOutboxUsers_WithoutASharer(t *testing.T) {
	for name, outbox := range map[string]store.Outbox{
		"no sharer": struct{ store.Outbox }{},
		"nil":       &sharer{senseless: func() any { return nil }},
		"another":   &sharer{senseless: func() any { return 7 }},
		"a panic":   &sharer{senseless: func() any { panic("no") }},
	} {
		u := usersOf(outbox)
		require.NotNil(t, u, name)
		require.NotNil(t, u.last, name)
		require.NotSame(t, u, usersOf(outbox), name)
	}
}

// Failures of a stream are for the publisher that published to it last, of those that want to be told and are not closed.
func TestOutboxUsers_TellTheLastThatWantsToKnow(t *testing.T) {
	u, key := usersOf(&sharer{}), store.Key{Topic: "orders"}
	wants := func() *Publisher { return &Publisher{cfg: PublisherConfig{OnFailure: func(string, []byte, error) {}}} }
	first, second, other := wants(), wants(), &Publisher{}
	u.publishers = []*Publisher{other, first, second}
	require.Same(t, &first.failures, u.failuresOf(key), "any, where none of them has published")
	for _, p := range []*Publisher{second, other} {
		u.published(p, key)
		require.Same(t, &second.failures, u.failuresOf(key))
	}
	u.leave(second)
	require.Same(t, &first.failures, u.failuresOf(key))
	u.published(first, key)
	u.leave(first)
	require.Nil(t, u.failuresOf(key))
	require.Empty(t, u.last)
}
