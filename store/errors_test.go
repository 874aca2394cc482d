package store

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFullError_MatchesErrOutboxFull(t *testing.T) {
	err := error(&FullError{Destination: "a:1", Pending: 90, Wanted: 20, Quota: 100})
	require.ErrorIs(t, err, ErrOutboxFull)
	require.NotErrorIs(t, err, ErrClosed)
	require.EqualError(t, err, `outbox: full: destination "a:1" has 90 bytes pending and 20 more exceed its quota of 100`)
}

func TestErrors_Unwrap(t *testing.T) {
	require.ErrorIs(t, &UnconfirmedError{First: 3, Count: 2, Err: context.Canceled}, context.Canceled)
	cause := errors.New("checksum")
	err := &CorruptError{
		File: "7.wal", Index: 12, Reason: "entry", Err: cause, Key: Key{Destination: "a:1", Topic: "orders"}, From: 5, Through: 6,
	}
	require.ErrorIs(t, err, cause)
	require.EqualError(t, err, `outbox: damaged: entry in 7.wal at record 12: sequences 5 to 6 of "a:1" "orders" cannot be read: checksum`)
	require.EqualError(t, &CorruptError{Reason: "entry"}, "outbox: damaged: entry")
}

func TestBatch_Next(t *testing.T) {
	require.EqualValues(t, 5, (&Batch{First: 5}).Next())
	require.EqualValues(t, 7, (&Batch{First: 5, Messages: [][]byte{nil, {1}}}).Next())
}
