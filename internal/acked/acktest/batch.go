// Package acktest is what the tests of both halves of the acked protocol share.
package acktest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// BatchOf makes a batch of encoded messages.
func BatchOf(t *testing.T, messages ...string) *session.Batch {
	var b session.Batch
	for _, m := range messages {
		_, ok, err := b.Append(1<<20, func(dst []byte) ([]byte, error) { return append(dst, m...), nil })
		require.NoError(t, err)
		require.True(t, ok)
	}
	return &b
}
