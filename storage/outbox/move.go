package outbox

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// moveBytes is how much Move copies at a time.
const moveBytes = 1 << 20

// Move gives the pending messages of one stream to another, at whose end they go on in their order, and ends the first.
// It is for messages that are pinned to an address which never returns: their new key is that of another address, or
// store.TopicKey. It waits until no publisher delivers the outbox. Messages that an earlier process had sent can come
// twice, as can some after a crash in the middle. moved is how many were copied, also with an error.
func (o *Outbox) Move(ctx context.Context, from, to store.Key) (moved int, err error) {
	release, err := o.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	if from == to {
		return 0, nil
	}
	for next := uint64(1); ; {
		batch, err := o.Read(from, next, moveBytes)
		if err != nil {
			return moved, err
		}
		if len(batch.Messages) == 0 {
			return moved, o.Forget(ctx, from)
		}
		if _, err := o.Append(ctx, to, batch.Messages...); err != nil {
			return moved, err
		}
		moved += len(batch.Messages)
		next = batch.Next()
		if err := o.Settle(from, next-1); err != nil {
			return moved, err
		}
	}
}
