package durable

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Outbox is ours, with a single stream.
var Outbox = Kind{Open: openOutbox, Replay: ReplayOutbox}

var stream = store.Key{Destination: "127.0.0.1:5031", Topic: "orders"}

type outboxStore struct{ *outbox.Outbox }

func openOutbox(dir string, _ int) (Store, error) {
	o, err := outbox.Open(outbox.Config{Dir: dir})
	return outboxStore{o}, err
}

func (s outboxStore) Append(ctx context.Context, message []byte) error {
	_, err := s.Outbox.Append(ctx, stream, message)
	return err
}

// ReplayOutbox reads all that is pending, stream by stream.
func ReplayOutbox(ctx context.Context, dir string, arrive func([]byte)) error {
	o, err := outbox.Open(outbox.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { _ = o.Close() }() // it was only read
	for _, s := range o.Streams() {
		if err := ReadAll(ctx, o, s.Key, arrive); err != nil {
			return err
		}
	}
	return nil
}

// ReadAll reads all that one stream has pending.
func ReadAll(ctx context.Context, o *outbox.Outbox, k store.Key, arrive func([]byte)) error {
	for next := uint64(1); ; {
		batch, err := o.Read(k, next, 256<<10)
		if err != nil || len(batch.Messages) == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, m := range batch.Messages {
			arrive(m)
		}
		next = batch.Next()
	}
}
