package pipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// A crash can come between the lock of a new outbox and all else.
func TestOutbox_IsMadeOnlyWhereNothingElseIs(t *testing.T) {
	dir := t.TempDir()
	require.ErrorContains(t, checkOutbox(dir, false), "empty")
	require.NoError(t, checkOutbox(dir, true))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
	require.ErrorContains(t, checkOutbox(dir, false), "empty")
	require.NoError(t, checkOutbox(dir, true))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600))
	require.ErrorContains(t, checkOutbox(dir, true), "something else")

	box, err := OpenOutbox(filepath.Join(dir, "mine"), true)
	require.NoError(t, err)
	_, err = OpenOutbox(filepath.Join(dir, "mine"), false)
	require.ErrorContains(t, err, "in use by another process")
	require.NoError(t, box.Close())
	require.NoError(t, checkOutbox(filepath.Join(dir, "mine"), false))
}

func TestWaitingError_IsBounded(t *testing.T) {
	streams := []store.Stream{
		{Key: store.Key{Destination: "a:1", Topic: "x"}, Pending: 2},
		{Key: store.Key{Destination: "a:1", Topic: "y"}, Pending: 3},
		{Key: store.Key{Destination: "done:1"}},
	}
	why := func(string) string { return "away" }
	err := waiting("dir", streams, why)
	err.Err = ErrInterrupted
	require.ErrorIs(t, err, ErrInterrupted)
	require.EqualError(t, err, "interrupted: 5 messages wait in dir: 5 for a:1 (away)")
	for i := range 10 {
		streams = append(streams, store.Stream{Key: store.Key{Destination: fmt.Sprintf("b:%d", i)}, Pending: 1})
	}
	require.ErrorContains(t, waiting("dir", streams, why), "1 for b:1 (away), and more for 8 others")
	require.Zero(t, waiting("dir", nil, why).Messages)
}

func TestNames_CannotMislead(t *testing.T) {
	for name, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1", "": `""`, "a b": `"a b"`, "a\x1b[2J\n": `"a\x1b[2J\n"`, "ü": "ü", `a"b`: `"a\"b"`,
	} {
		require.Equal(t, want, Printable(name))
	}
}

func TestWitness_TellsOnce(t *testing.T) {
	var warn bytes.Buffer
	var damage []*store.CorruptError
	w := newWitness(watermill.NopLogger{}, &warn, func(e *store.CorruptError) { damage = append(damage, e) })
	lost, refused := &store.CorruptError{Reason: "rot"}, errors.New("refused")
	for range 3 {
		w.With(nil).Error("kept", refused, watermill.LogFields{"address": "tls://a:1"})
		w.Error("kept", fmt.Errorf("stream: %w", lost), watermill.LogFields{"address": "b:1"})
		w.Error("OnFailure has it", refused, watermill.LogFields{"address": "c:1", "sequence": uint64(1)})
	}
	w.Info("lost", watermill.LogFields{"address": "b:1", "err": errors.New("gone")})
	require.Equal(t, 2, strings.Count(warn.String(), "\n"), warn.String())
	require.Equal(t, []*store.CorruptError{lost, lost, lost}, damage)
	require.Equal(t, refused, w.lastError("a:1"), "TLS or not, it is the same address")
	require.EqualError(t, w.lastError("b:1"), "gone")
	require.NoError(t, w.lastError("c:1"))
}

// A line that finds no room is named, and what was stored before it is kept.
func TestOutbox_FullNamesTheLines(t *testing.T) {
	full := &buffstreams.PublishError{Err: &store.FullError{Destination: "a:1", Quota: 100}}
	err := (&queue{}).explain([]line{{number: 3}, {number: 4}}, full)
	require.ErrorIs(t, err, store.ErrOutboxFull)
	require.ErrorContains(t, err, "lines 3 to 4 did not come into the outbox: outbox: full")
}

// Damage ends the wait for what is behind it, and not for what comes before it or belongs to others.
func TestDeliverable(t *testing.T) {
	box, err := OpenOutbox(filepath.Join(t.TempDir(), "o"), true)
	require.NoError(t, err)
	defer func() { require.NoError(t, box.Close()) }()
	hurt, sound := store.Key{Destination: "a:1"}, store.Key{Destination: "b:1"}
	for _, key := range []store.Key{hurt, sound} {
		_, err = box.Append(context.Background(), key, []byte("1"), []byte("2"), []byte("3"))
		require.NoError(t, err)
	}
	s := &queue{box: box, damaged: map[store.Key]*store.CorruptError{}}
	s.note(&store.CorruptError{Key: hurt, From: 3, Through: 3})
	others, ahead := s.deliverable()
	require.True(t, others)
	require.EqualValues(t, 2, ahead)
	require.NoError(t, box.Settle(sound, 3))
	require.NoError(t, box.Settle(hurt, 1))
	others, ahead = s.deliverable()
	require.False(t, others)
	require.EqualValues(t, 1, ahead)
	require.NoError(t, box.Settle(hurt, 2))
	require.ErrorIs(t, s.deliverUndamaged(context.Background()), errDamaged)
}
