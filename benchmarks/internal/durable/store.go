package durable

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// Store is one that keeps messages.
type Store interface {
	// Append returns when the message is durable. It is called by all senders at once.
	Append(ctx context.Context, message []byte) error
	// Close leaves the messages on disk.
	Close() error
}

// Kind is a way to keep messages.
type Kind struct {
	// Open makes an empty store in a directory of its own.
	Open func(dir string, senders int) (Store, error)
	// Replay reads all messages of a store that was closed, in the order in which each sender appended its own.
	Replay func(ctx context.Context, dir string, arrive func(message []byte)) error
}

// Turn lets a store of that kind take messages in a new directory below dir, and reads back what it has.
func (k Kind) Turn(dir string) measure.Turn {
	return func(ctx context.Context, l *measure.Ledger, d time.Duration) (pace measure.Pace, err error) {
		at, err := os.MkdirTemp(dir, "turn-")
		if err != nil {
			return pace, err
		}
		defer func() { err = errors.Join(err, remove(at)) }()
		store, err := k.Open(filepath.Join(at, "store"), l.Senders())
		if err != nil {
			return pace, fmt.Errorf("open: %w", err)
		}
		pace, err = measure.Publish(ctx, l, d, func(_ int, message []byte) error {
			return store.Append(ctx, message)
		})
		if err := errors.Join(err, store.Close()); err != nil {
			return pace, err
		}
		return pace, k.Replay(ctx, filepath.Join(at, "store"), l.Arrive)
	}
}

// remove deletes a store, and waits until the file system is done with that: otherwise the next one's first fsync would
// pay for it.
func remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
