package buffstreams

import (
	"testing"
	"time"

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

// A PublishTimeout below zero is no bound anywhere: 0 says so from the defaults on.
func TestPublisherConfig_PublishTimeoutBelowZeroIsNoBound(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{-1: 0, -time.Hour: 0, 0: DefaultPublishTimeout, 1: 1} {
		cfg := PublisherConfig{PublishTimeout: given}
		cfg.setDefaults()
		require.Equal(t, want, cfg.PublishTimeout)
	}
}
