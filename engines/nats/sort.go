package nats

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// place is a delivery's place in the stream.
func place(d driver.Delivery) uint64 {
	meta, err := d.Token.(jetstream.Msg).Metadata() //nolint:forcetypeassert // delivery made it
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}

// handOut notes what the subscription has in hand.
func (s *source) handOut(deliveries []driver.Delivery) []driver.Delivery {
	if s.out == nil {
		return deliveries
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range deliveries {
		s.out[place(d)] = struct{}{}
	}
	return deliveries
}

// sort waits until the server gives again what it has given before and is neither acked nor in hand here: what an
// earlier member had, or what was lost with a connection. The server has lost the order of those, and would give new
// messages with them.
func (s *source) sort(ctx context.Context) error {
	found := map[uint64]driver.Delivery{}
	for _, d := range s.first {
		s.find(found, d)
	}
	for s.pending != nil { // of a request that is not through
		select {
		case msg, more := <-s.pending.Messages():
			if !more {
				s.pending = nil
				break
			}
			s.find(found, s.delivery(msg))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.first = slices.Collect(maps.Values(found)) // an error below loses none
	missing, err := s.missing(ctx, found)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(s.b.cfg.RedeliverAfter + 250*time.Millisecond); missing > 0 && time.Now().Before(deadline); {
		timer := time.NewTimer(250 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		if missing, err = s.missing(ctx, found); err != nil { // acks that were on their way have come since
			return err
		}
	}
	for missing > 0 {
		batch, err := s.consumer.Fetch(missing, jetstream.FetchMaxWait(fetchWait))
		if err != nil {
			return err
		}
		for msg := range batch.Messages() {
			s.find(found, s.delivery(msg))
		}
		s.first = slices.Collect(maps.Values(found))
		if err := ctx.Err(); err != nil {
			return err
		}
		if missing, err = s.missing(ctx, found); err != nil {
			return err
		}
	}
	s.first = s.first[:0]
	for _, at := range slices.Sorted(maps.Keys(found)) {
		s.first = append(s.first, found[at])
	}
	s.sorting = false
	return nil
}

// find keeps a delivery, unless its message is in hand.
func (s *source) find(found map[uint64]driver.Delivery, d driver.Delivery) {
	at := place(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, inHand := s.out[at]; !inHand {
		found[at] = d
	}
}

// missing is how many messages the server waits for the acks of that are neither found nor in hand.
func (s *source) missing(ctx context.Context, found map[uint64]driver.Delivery) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return info.NumAckPending - len(found) - len(s.out), nil
}
