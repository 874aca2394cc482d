package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// Recent returns the IDs of the last n messages of each partition.
func (b *broker) Recent(ctx context.Context, asked string, n int) ([]string, error) {
	t, err := b.topic(ctx, asked)
	if err != nil {
		return nil, err
	}
	ends, err := b.admin.ListEndOffsets(ctx, t.name)
	if err != nil {
		return nil, err
	}
	starts, err := b.admin.ListStartOffsets(ctx, t.name)
	if err != nil {
		return nil, err
	}
	offsets, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, end := range ends.Offsets()[t.name] {
		start, _ := starts.Lookup(t.name, p)
		if from := max(start.Offset, end.At-int64(n)); from < end.At {
			offsets[p], left[p] = kgo.NewOffset().At(from), end.At
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	options := append(slices.Clone(b.options), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.name: offsets}), kgo.KeepControlRecords())
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var ids []string
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return ids, fmt.Errorf("engines: kafka: the last messages of topic %s: %w", t.name, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			for _, h := range r.Headers {
				if h.Key == driver.IDHeader {
					ids = append(ids, string(h.Value))
				}
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return ids, nil
}
