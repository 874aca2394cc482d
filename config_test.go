package buffstreams

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestPublisherConfig_NilOutbox: a variable of a pointer type that nobody has set must not become an outbox that panics.
func TestPublisherConfig_NilOutbox(t *testing.T) {
	type outbox struct{ store.Outbox }
	require.NoError(t, PublisherConfig{}.Validate())
	require.NoError(t, PublisherConfig{Outbox: &outbox{}}.Validate())
	require.NoError(t, PublisherConfig{Outbox: outbox{}}.Validate())
	require.ErrorContains(t, PublisherConfig{Outbox: (*outbox)(nil)}.Validate(), "PublisherConfig.Outbox")
}
