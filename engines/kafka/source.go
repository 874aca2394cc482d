package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// source is a subscription: a client of its own, and of each partition what is not settled.
type source struct {
	b      *broker
	asked  string // the topic as it was subscribed to
	topic  topic  // its id is guarded by mu
	group  string
	client *kgo.Client

	mu         sync.Mutex
	partitions map[int32]*partition // those that the client has; guarded by mu, as what is in them
	changed    chan struct{}        // closed, and made anew, by each Settle
	closing    bool
}

// partition has what was fetched of a partition and not committed, in order.
type partition struct {
	number int32
	lost   bool // another member has it
	open   []*record
}

// record is the token of a delivery.
type record struct {
	in      *partition
	epoch   int32
	offset  int64
	settled bool
}

// Consume begins a subscription.
func (b *broker) Consume(ctx context.Context, asked, group string) (driver.Source, error) {
	t, err := b.topic(ctx, asked)
	if err != nil {
		return nil, err
	}
	s := &source{b: b, asked: asked, topic: t, group: group, partitions: map[int32]*partition{}, changed: make(chan struct{})}
	options := append(slices.Clone(b.options), kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if group == "" {
		ends, err := b.admin.ListEndOffsets(ctx, t.name)
		if err != nil {
			return nil, fmt.Errorf("engines: kafka: the ends of topic %s: %w", t.name, err)
		}
		offsets := map[int32]kgo.Offset{}
		for p, o := range ends.Offsets()[t.name] {
			offsets[p] = kgo.NewOffset().At(o.At)
		}
		options = append(options, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.name: offsets}))
	} else {
		if b.cfg.Start == driver.StartNew {
			if err := b.beginAtEnd(ctx, t.name, group); err != nil {
				return nil, fmt.Errorf("engines: kafka: the start of group %.100q: %w", group, err)
			}
		}
		options = append(options,
			kgo.ConsumerGroup(group), kgo.ConsumeTopics(t.name), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Balancers(kgo.CooperativeStickyBalancer()),
			kgo.SessionTimeout(b.cfg.RedeliverAfter), kgo.HeartbeatInterval(min(3*time.Second, b.cfg.RedeliverAfter/4)),
			kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),
		)
	}
	s.client, err = kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Fetch returns what the client has, or waits for it.
func (s *source) Fetch(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	for ctx.Err() == nil {
		fetches := s.client.PollRecords(ctx, maximum)
		if records := fetches.Records(); len(records) > 0 {
			return s.take(records), nil
		}
		if err := fetches.Err(); err != nil {
			if lost := (*kgo.ErrDataLoss)(nil); gone(err) || errors.As(err, &lost) {
				return nil, errors.Join(err, s.again(ctx, gone(err)))
			}
			return nil, err
		}
	}
	return nil, ctx.Err()
}

// again finds a topic that was deleted, or makes it again: it has another ID then. The client has to begin anew with it, unless it
// has done so by itself.
func (s *source) again(ctx context.Context, anew bool) error {
	s.b.forget(s.asked)
	t, err := s.b.topic(ctx, s.asked)
	s.mu.Lock()
	s.topic.id = t.id // empty if there is none yet: its messages have no names then
	s.mu.Unlock()
	if anew && s.group != "" {
		s.client.PurgeTopicsFromConsuming(s.topic.name)
		s.client.AddConsumeTopics(s.topic.name)
	}
	return err
}

func (s *source) take(records []*kgo.Record) []driver.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	deliveries := make([]driver.Delivery, len(records))
	for i, r := range records {
		p := s.partitions[r.Partition]
		if p == nil {
			p = &partition{number: r.Partition}
			s.partitions[r.Partition] = p
		}
		token := &record{in: p, epoch: r.LeaderEpoch, offset: r.Offset}
		p.open = append(p.open, token)
		deliveries[i] = driver.Delivery{Message: decode(r), Token: token}
		if s.topic.id != "" {
			deliveries[i].ID = fmt.Sprintf("%s%d/%d", s.topic.id, r.Partition, r.Offset)
		}
	}
	return deliveries
}

// Settle commits how far each partition is settled without a gap.
func (s *source) Settle(ctx context.Context, deliveries []driver.Delivery) error {
	offsets := s.settle(deliveries)
	var err error
	if s.group != "" && len(offsets) > 0 {
		err = s.commit(ctx, map[string]map[int32]kgo.EpochOffset{s.topic.name: offsets})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.forgetLocked(offsets)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return err
}

// settle notes what was handled, and returns the offsets to commit.
func (s *source) settle(deliveries []driver.Delivery) map[int32]kgo.EpochOffset {
	s.mu.Lock()
	defer s.mu.Unlock()
	offsets := map[int32]kgo.EpochOffset{}
	for _, d := range deliveries {
		d.Token.(*record).settled = true //nolint:forcetypeassert // take made it
	}
	for _, p := range s.partitions {
		n := 0
		for n < len(p.open) && p.open[n].settled {
			n++
		}
		if n == 0 || p.lost {
			continue
		}
		offsets[p.number] = kgo.EpochOffset{Epoch: p.open[n-1].epoch, Offset: p.open[n-1].offset + 1}
	}
	return offsets
}

// forgetLocked drops what is committed.
func (s *source) forgetLocked(committed map[int32]kgo.EpochOffset) {
	for _, p := range s.partitions {
		at, ok := committed[p.number]
		if !ok {
			continue
		}
		n := 0
		for n < len(p.open) && p.open[n].settled && p.open[n].offset < at.Offset {
			n++
		}
		p.open = append(p.open[:0:0], p.open[n:]...)
	}
}

func (s *source) commit(ctx context.Context, offsets map[string]map[int32]kgo.EpochOffset) error {
	done := make(chan error, 1)
	s.client.CommitOffsets(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		done <- commitError(response, err)
	})
	return <-done
}

// commitError is the first error of an answer.
func commitError(response *kmsg.OffsetCommitResponse, err error) error {
	if err != nil {
		return err
	}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// revoked waits until what was fetched of partitions that others get is settled, so that they get nothing twice: up to
// close_timeout.
func (s *source) revoked(ctx context.Context, _ *kgo.Client, revoked map[string][]int32) {
	timeout := time.NewTimer(s.b.cfg.CloseTimeout)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		open, changed := 0, s.changed
		for _, p := range revoked[s.topic.name] {
			if s.partitions[p] != nil {
				open += len(s.partitions[p].open)
			}
		}
		if open == 0 || s.closing {
			s.mu.Unlock()
			break
		}
		s.mu.Unlock()
		select {
		case <-changed:
			continue
		case <-timeout.C:
		case <-ctx.Done():
		}
		break
	}
	s.lost(ctx, nil, revoked)
}

// lost forgets partitions: what of them is still in hand is settled by their new member.
func (s *source) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range lost[s.topic.name] {
		if s.partitions[p] != nil {
			s.partitions[p].lost = true
			delete(s.partitions, p)
		}
	}
}

// Extend has nothing to do: the client's heartbeats keep the partitions.
func (*source) Extend(context.Context, []driver.Delivery) error { return nil }

// Return has nothing to do: what is not committed goes to the next member.
func (*source) Return(context.Context, []driver.Delivery) error { return nil }

// Close leaves the group.
func (s *source) Close() error {
	s.mu.Lock()
	s.closing = true
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.client.Close()
	return nil
}
