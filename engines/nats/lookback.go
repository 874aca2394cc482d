package nats

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Recent returns the IDs of the last n messages of a topic.
func (b *broker) Recent(ctx context.Context, topic string, n int) (ids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	err = retry(ctx, func() (err error) {
		ids, err = b.recent(ctx, topic, n)
		return err
	})
	return ids, err
}

func (b *broker) recent(ctx context.Context, topic string, n int) ([]string, error) {
	s, err := b.stream(ctx, topic)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, requestTimeout) // an answer can be lost: the caller tries again
	defer cancel()
	js, err := b.js.Stream(asking, s.name)
	if err != nil {
		return nil, err
	}
	state := js.CachedInfo().State
	if state.Msgs == 0 {
		return nil, nil
	}
	first := state.FirstSeq
	if state.LastSeq >= uint64(n) {
		first = max(first, state.LastSeq-uint64(n)+1)
	}
	consumer, err := js.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first, HeadersOnly: true,
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for seen := uint64(0); seen < state.LastSeq; {
		batch, err := consumer.Fetch(int(min(state.LastSeq-max(seen, first-1), 1000)), jetstream.FetchMaxWait(requestTimeout))
		if err != nil {
			return ids, err
		}
		got := false
		for msg := range batch.Messages() {
			meta, err := msg.Metadata()
			if err != nil {
				return ids, err
			}
			seen, got = meta.Sequence.Stream, true
			if id := msg.Headers().Get(nats.MsgIdHdr); id != "" {
				ids = append(ids, id)
			}
		}
		if err := batch.Error(); err != nil {
			return ids, err
		}
		if !got {
			return ids, errors.New("engines: nats: the stream does not give its last messages")
		}
	}
	return ids, nil
}
