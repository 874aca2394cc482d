package redis

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// The names of consumers: of the one member of a group, and of what was given back.
const (
	onlyMember = "member"
	givenBack  = "given-back"
)

// source is a subscription. What is below last belongs to the goroutine of Fetch.
type source struct {
	b        *broker
	topic    string
	group    string
	consumer string

	last    string // without a group: the entry that was read last; with one: the last of its own that was read again
	own     bool   // what this consumer had in hand before is read first
	claimed time.Time
}

// Consume begins a subscription.
func (b *broker) Consume(ctx context.Context, topic, group string) (driver.Source, error) {
	if err := b.Declare(ctx, topic, group); err != nil {
		return nil, err
	}
	s := &source{b: b, topic: topic, group: group, consumer: watermill.NewShortUUID(), last: "0"}
	if group != "" {
		if b.cfg.Members == 1 {
			s.consumer, s.own = onlyMember, true
		}
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	entries, err := b.client.XRevRangeN(ctx, topic, "+", "-", 1).Result()
	if len(entries) > 0 {
		s.last = entries[0].ID
	}
	return s, err
}

// fetchWait is how long one request for messages stands.
const fetchWait = time.Second

// Fetch reads what dead members had in hand, and then what is new.
func (s *source) Fetch(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	for ctx.Err() == nil {
		entries, err := s.readOnce(ctx, maximum)
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, errors.Join(err, s.recover(ctx, err))
		}
		if len(entries) > 0 {
			return s.deliveries(entries), nil
		}
	}
	return nil, ctx.Err()
}

func (s *source) readOnce(ctx context.Context, maximum int) ([]redis.XMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait+requestTimeout)
	defer cancel()
	return s.read(ctx, maximum)
}

// recover prepares the next Fetch after an error: the server can have given entries to this consumer whose answer was
// lost, so that its own come first again; and a group that is gone is made again, as the stream was deleted or the
// server has lost its data.
func (s *source) recover(ctx context.Context, err error) error {
	if s.group == "" {
		return nil
	}
	s.own, s.last = true, "0"
	if !redis.HasErrorPrefix(err, "NOGROUP") {
		return nil
	}
	return s.b.Declare(ctx, s.topic, s.group)
}

func (s *source) read(ctx context.Context, maximum int) ([]redis.XMessage, error) {
	count, client := int64(maximum), s.b.client
	if s.group == "" {
		entries, err := one(client.XRead(ctx, &redis.XReadArgs{Streams: []string{s.topic, s.last}, Count: count, Block: fetchWait}).Result())
		if len(entries) > 0 {
			s.last = entries[len(entries)-1].ID
		}
		return entries, err
	}
	if s.own {
		entries, err := one(client.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: s.group, Consumer: s.consumer, Streams: []string{s.topic, s.last}, Count: count,
		}).Result())
		if err == nil && len(entries) == 0 {
			s.own = false
		}
		if len(entries) > 0 {
			s.last = entries[len(entries)-1].ID
		}
		return s.withoutTrimmed(ctx, entries), err
	}
	if time.Since(s.claimed) > min(s.b.cfg.RedeliverAfter/2, time.Second) {
		entries, _, err := client.XAutoClaim(ctx, &redis.XAutoClaimArgs{
			Stream: s.topic, Group: s.group, Consumer: s.consumer, MinIdle: s.b.cfg.RedeliverAfter, Start: "0", Count: count,
		}).Result()
		if err != nil || len(entries) > 0 {
			return entries, err
		}
		s.claimed = time.Now()
	}
	return one(client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: s.group, Consumer: s.consumer, Streams: []string{s.topic, ">"}, Count: count, Block: fetchWait,
	}).Result())
}

// withoutTrimmed acks the entries that max_len has removed from the stream before they were handled: there is nothing
// left of them.
func (s *source) withoutTrimmed(ctx context.Context, entries []redis.XMessage) []redis.XMessage {
	kept := entries[:0]
	for _, e := range entries {
		if e.Values != nil {
			kept = append(kept, e)
			continue
		}
		s.b.cfg.Logger.Error("A message was removed by max_len before it was handled", nil, watermill.LogFields{"topic": s.topic, "entry": e.ID})
		_ = s.b.client.XAck(ctx, s.topic, s.group, e.ID).Err() // else it comes again, and is removed then
	}
	return kept
}

// one are the entries of the one stream that was asked for.
func one(streams []redis.XStream, err error) ([]redis.XMessage, error) {
	if len(streams) == 0 {
		return nil, err
	}
	return streams[0].Messages, err
}

func (s *source) deliveries(entries []redis.XMessage) []driver.Delivery {
	deliveries := make([]driver.Delivery, 0, len(entries))
	for _, e := range entries {
		msg, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(e.Values)
		if err != nil { // another program's: its values are what it has
			msg = message.NewMessage("", nil)
			for k, v := range e.Values {
				if text, ok := v.(string); ok {
					msg.Metadata.Set(k, text)
				}
			}
		}
		deliveries = append(deliveries, driver.Delivery{Message: msg, ID: s.b.id + s.topic + "/" + e.ID, Token: e.ID})
	}
	return deliveries
}

func ids(deliveries []driver.Delivery) []string {
	entries := make([]string, len(deliveries))
	for i, d := range deliveries {
		entries[i] = d.Token.(string) //nolint:forcetypeassert // deliveries made it
	}
	return entries
}

// chunk bounds the entries that one command names.
const chunk = 1000

// Settle acks entries.
func (s *source) Settle(ctx context.Context, deliveries []driver.Delivery) error {
	if s.group == "" {
		return nil
	}
	pipe := s.b.client.Pipeline()
	for some := range slices.Chunk(ids(deliveries), chunk) {
		pipe.XAck(ctx, s.topic, s.group, some...)
	}
	_, err := pipe.Exec(ctx)
	return err
}

// Extend begins the time of entries anew.
func (s *source) Extend(ctx context.Context, deliveries []driver.Delivery) error {
	return s.claim(ctx, s.consumer, 0, deliveries)
}

// Return has others claim entries at once. The one member of a group keeps its own, and reads them again when it comes
// back.
func (s *source) Return(ctx context.Context, deliveries []driver.Delivery) error {
	if s.b.cfg.Members == 1 {
		return nil
	}
	return s.claim(ctx, givenBack, s.b.cfg.RedeliverAfter, deliveries)
}

// claim gives entries to a consumer, as if it had them for some time.
func (s *source) claim(ctx context.Context, consumer string, idle time.Duration, deliveries []driver.Delivery) error {
	if s.group == "" {
		return nil
	}
	pipe := s.b.client.Pipeline()
	for some := range slices.Chunk(ids(deliveries), chunk) {
		args := []any{"XCLAIM", s.topic, s.group, consumer, 0}
		for _, id := range some {
			args = append(args, id)
		}
		pipe.Do(ctx, append(args, "IDLE", idle.Milliseconds(), "JUSTID")...)
	}
	_, err := pipe.Exec(ctx)
	return err
}

// Close removes the consumer, which has nothing in hand any more.
func (s *source) Close() error {
	if s.group == "" || s.consumer == onlyMember {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	pending, err := s.b.client.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: s.topic, Group: s.group, Start: "-", End: "+", Count: 1, Consumer: s.consumer,
	}).Result()
	if err != nil || len(pending) > 0 { // others claim what it has
		return err
	}
	return s.b.client.XGroupDelConsumer(ctx, s.topic, s.group, s.consumer).Err()
}
