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
	b     *broker
	asked string // the topic as it was subscribed to
	group string

	checked time.Time // when the broker was asked last for the topic's ID; Fetch's

	mu         sync.Mutex
	topic      topic                // its name stays; its id is guarded by mu, as what follows: only Fetch changes it
	client     *kgo.Client          // of the topic with that id
	stored     map[int32]int64      // the positions in the topic that were sent to the group last
	stale      map[int32]int64      // those in the topic of the same name before it
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
	s := &source{
		b: b, asked: asked, topic: t, group: group, stored: map[int32]int64{}, partitions: map[int32]*partition{}, changed: make(chan struct{}),
	}
	if group != "" && b.cfg.Start == driver.StartNew {
		if err := b.beginAtEnd(ctx, t.name, group); err != nil {
			return nil, fmt.Errorf("engines: kafka: the start of group %.100q: %w", group, err)
		}
	}
	s.client, err = s.newClient(ctx, false)
	return s, err
}

// newClient makes a client. One without a group begins at the topic's end, or at its start where that is asked for.
func (s *source) newClient(ctx context.Context, atStart bool) (*kgo.Client, error) {
	options := append(slices.Clone(s.b.options), kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if s.group != "" {
		return kgo.NewClient(append(options,
			kgo.ConsumerGroup(s.group), kgo.ConsumeTopics(s.topic.name), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Balancers(kgo.CooperativeStickyBalancer()),
			kgo.SessionTimeout(s.b.cfg.RedeliverAfter), kgo.HeartbeatInterval(min(3*time.Second, s.b.cfg.RedeliverAfter/4)),
			kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost), kgo.AdjustFetchOffsetsFn(s.withoutStale))...)
	}
	ends, err := s.b.admin.ListEndOffsets(ctx, s.topic.name)
	if err != nil {
		return nil, fmt.Errorf("engines: kafka: the ends of topic %s: %w", s.topic.name, err)
	}
	offsets := map[int32]kgo.Offset{}
	for p, o := range ends.Offsets()[s.topic.name] {
		offsets[p] = kgo.NewOffset().At(o.At)
		if atStart {
			offsets[p] = kgo.NewOffset().AtStart()
		}
	}
	return kgo.NewClient(append(options, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic.name: offsets}))...)
}

// withoutStale has the client begin at the start of partitions where the group's position can be one that was stored
// from here for an earlier topic of the same name.
func (s *source) withoutStale(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, o := range offsets[s.topic.name] {
		if at, ok := s.stale[p]; ok && o.EpochOffset().Offset <= at {
			offsets[s.topic.name][p] = kgo.NewOffset().AtStart()
			delete(s.stale, p)
		}
	}
	return offsets, nil
}

// Fetch returns what the client has, or waits for it.
func (s *source) Fetch(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	for ctx.Err() == nil {
		if s.client == nil {
			if err := s.renew(ctx); err != nil {
				return nil, err
			}
		}
		if err := s.check(ctx); err != nil {
			return nil, err
		}
		fetches := s.poll(ctx, maximum)
		if err := elsewhere(fetches); err != nil {
			changed, failed := s.again(ctx)
			if changed || failed != nil || len(fetches.Records()) == 0 { // what a client of the old topic has of the new one comes again
				return nil, errors.Join(err, failed)
			}
		}
		if records := fetches.Records(); len(records) > 0 {
			return s.take(records), nil
		}
		if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
	}
	return nil, ctx.Err()
}

// checkEvery is how often a subscription asks whether its topic is still the same one.
const checkEvery = 2 * time.Second

// poll waits for records until the next check.
func (s *source) poll(ctx context.Context, maximum int) kgo.Fetches {
	ctx, cancel := context.WithDeadline(ctx, s.checked.Add(checkEvery))
	defer cancel()
	return s.client.PollRecords(ctx, maximum)
}

var errAnew = errors.New("engines: kafka: the topic was made anew: its messages are read from the start")

// check asks for the topic's ID: where a topic has as many messages as the one of that name before it had, a client
// goes on as if it were the same. A broker that does not answer is no news.
func (s *source) check(ctx context.Context) error {
	if time.Since(s.checked) < checkEvery {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	found, err := s.b.find(asking, s.topic.name)
	s.checked = time.Now()
	if err != nil || "kafka/"+found.ID.String()+"/" == s.topic.id {
		return nil
	}
	changed, err := s.again(ctx)
	if changed {
		return errors.Join(errAnew, err)
	}
	return err
}

// elsewhere is an error that a client gets where its topic is gone, or is another one of the same name; nil if there is
// none.
func elsewhere(fetches kgo.Fetches) (found error) {
	fetches.EachError(func(_ string, _ int32, err error) {
		if lost := (*kgo.ErrDataLoss)(nil); gone(err) || errors.As(err, &lost) {
			found = err
		}
	})
	return found
}

// again finds a topic that was deleted, or makes it again. One with another ID is another topic, which a client does
// not read as it should: it gets one of its own, from its start. What is still in hand of the old one is settled by
// being gone.
func (s *source) again(ctx context.Context) (changed bool, err error) {
	s.b.forget(s.asked)
	t, err := s.b.topic(ctx, s.asked)
	if err != nil || t.id == s.topic.id {
		return false, err
	}
	s.mu.Lock()
	for _, p := range s.partitions {
		p.lost = true
	}
	clear(s.partitions)
	old := s.client
	s.topic.id, s.stale, s.stored, s.client = t.id, s.stored, map[int32]int64{}, nil
	s.mu.Unlock()
	old.Close() // it leaves the group
	return true, s.renew(ctx)
}

// renew makes the client of a topic that was made anew.
func (s *source) renew(ctx context.Context) error {
	client, err := s.newClient(ctx, true)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = client
	return nil
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
	client, offsets := s.settle(deliveries)
	var err error
	if s.group != "" && len(offsets) > 0 {
		err = commit(ctx, client, map[string]map[int32]kgo.EpochOffset{s.topic.name: offsets})
	}
	if gone(err) {
		err = nil // with its topic: Fetch will see
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

// settle notes what was handled, and returns the offsets to commit and the client that they are of.
func (s *source) settle(deliveries []driver.Delivery) (*kgo.Client, map[int32]kgo.EpochOffset) {
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
		s.stored[p.number] = offsets[p.number].Offset
	}
	return s.client, offsets
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

func commit(ctx context.Context, client *kgo.Client, offsets map[string]map[int32]kgo.EpochOffset) error {
	done := make(chan error, 1)
	client.CommitOffsets(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
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
	if s.client != nil {
		s.client.Close()
	}
	return nil
}
