package buffstreams

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// courier delivers what an outbox holds: a goroutine for each of its streams reads messages when the peer wants them, and
// settles in the outbox what was handled. One courier at a time delivers an outbox.
type courier struct {
	outbox    store.Outbox
	manager   *Manager
	logger    watermill.LoggerAdapter
	onFailure func(topic string, encoded []byte, err error)

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func startCourier(p *Publisher) *courier {
	c := &courier{outbox: p.cfg.Outbox, manager: p.manager, logger: p.logger, onFailure: p.cfg.OnFailure}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Go(c.run) // ends with stop
	return c
}

// stop ends the delivery. What was not delivered stays in the outbox, and another publisher on it carries on.
func (c *courier) stop() {
	c.cancel()
	c.wg.Wait()
}

// run waits for its turn with the outbox, then starts a goroutine for each stream.
func (c *courier) run() {
	release, err := c.outbox.Deliver(c.ctx)
	if err != nil {
		return
	}
	defer release()
	var streams sync.WaitGroup
	defer streams.Wait()
	known := map[uint64]bool{}
	for {
		more := c.outbox.NewStreams()
		for _, s := range c.outbox.Streams() {
			if !known[s.ID] {
				known[s.ID] = true
				streams.Go(func() { c.deliver(s.ID) }) // ends with stop
			}
		}
		select {
		case <-more:
		case <-c.ctx.Done():
			return
		}
		if c.ctx.Err() == nil && c.outbox.Err() != nil {
			return
		}
	}
}

// refusedPause is the wait before a stream is tried again that the peer or the outbox did not let go on.
const refusedPause = 5 * time.Second

// deliver sees to one stream until the courier stops. A stream that cannot be delivered holds up no other.
func (c *courier) deliver(id uint64) {
	for c.ctx.Err() == nil {
		s, ok := c.stream(id)
		if !ok {
			return
		}
		err := c.relay(s)
		if c.ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return
		}
		c.complain(s.Key, err)
	}
}

// complain says why a stream does not go on, and waits before the next attempt.
func (c *courier) complain(key store.Key, err error) {
	c.logger.Error("Messages of an outbox cannot be delivered; they are kept", err, watermill.LogFields{
		"provider": "buffstreams", "address": key.Destination, "topic": key.Topic,
	})
	select {
	case <-time.After(refusedPause):
	case <-c.ctx.Done():
	}
}

// stream looks a stream up as it is now.
func (c *courier) stream(id uint64) (store.Stream, bool) {
	for _, s := range c.outbox.Streams() {
		if s.ID == id {
			return s, true
		}
	}
	return store.Stream{}, false
}

// relay delivers a stream until something ends that.
func (c *courier) relay(s store.Stream) error {
	target, err := parseAddress(s.Key.Destination)
	if err != nil {
		return err
	}
	link, err := c.manager.sender(target)
	if err != nil {
		return err
	}
	p := &parcel{courier: c, key: s.Key}
	r, err := link.Fetch(sender.FetchConfig{
		Identity: c.identity(s.Key.Destination), Stream: s.ID, Topic: s.Key.Topic, Base: s.First,
		OnSettled: p.settled, OnRefused: p.refused,
	})
	if err != nil {
		return err
	}
	defer r.End()
	if s.Pending > 0 {
		r.Announce(s.Next) // the receiver may have any of them already
	}
	return p.feed(r)
}

// identity is what a destination knows the outbox by: a receiver that shared it with another could pose as this side there.
func (c *courier) identity(destination string) (id session.Identity) {
	secret, publisher := c.outbox.Secret(), c.outbox.ID()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write(publisher[:])
	mac.Write([]byte(destination))
	sum := mac.Sum(nil)
	return session.Identity{Publisher: [16]byte(sum[:16]), Epoch: c.outbox.Epoch(), Secret: [16]byte(sum[16:])}
}

// parcel is one stream on its way.
type parcel struct {
	courier *courier
	key     store.Key
	reading sync.Mutex // feed and refused both read
}

// readBytes is how much is read from the outbox at a time.
const readBytes = 64 << 10

// feed reads messages as the peer wants them.
func (p *parcel) feed(r *sender.FetchedStream) error {
	for p.courier.ctx.Err() == nil {
		from, generation, ok, err := r.Next(p.courier.ctx)
		if err != nil {
			return err
		}
		if !ok { // nobody is dialed for a stream that holds nothing
			if err := p.awaitQuiet(r); err != nil {
				return err
			}
			continue
		}
		batch, err := p.read(from, readBytes)
		if damage := (*store.CorruptError)(nil); errors.As(err, &damage) {
			// What was read before it stays on its way; who settles the damaged range lets the stream go on.
			p.courier.complain(p.key, err)
			continue
		}
		if err != nil {
			return err
		}
		if len(batch.Messages) > 0 {
			r.Feed(generation, batch.First, batch.Messages)
			continue
		}
		if err := p.await(r, batch.First); err != nil {
			return err
		}
	}
	return p.courier.ctx.Err()
}

// read is for one goroutine at a time.
func (p *parcel) read(from uint64, size int) (store.Batch, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	return p.courier.outbox.Read(p.key, from, size)
}

// awaitQuiet waits until there is something to deliver.
func (p *parcel) awaitQuiet(r *sender.FetchedStream) error {
	next, quiet := r.Quiet()
	if !quiet {
		return nil
	}
	return p.await(r, next)
}

// await waits until message seq is durable, or something else is wanted, and announces it.
func (p *parcel) await(r *sender.FetchedStream, seq uint64) error {
	lost := r.Lost()
	ready, err := p.courier.outbox.Ready(p.key, seq)
	if err != nil {
		return err
	}
	select {
	case <-ready:
		if err := p.courier.outbox.Err(); err != nil {
			return err
		}
		r.Announce(seq + 1)
	case <-lost:
	case <-p.courier.ctx.Done():
		return p.courier.ctx.Err()
	}
	return nil
}

func (p *parcel) settled(ranges []store.Range) { p.settle(ranges...) }

func (p *parcel) settle(ranges ...store.Range) {
	if err := p.courier.outbox.Settle(p.key, 0, ranges...); err != nil && !errors.Is(err, store.ErrClosed) {
		p.courier.logger.Error("An outbox cannot settle what was delivered", err, watermill.LogFields{
			"provider": "buffstreams", "topic": p.key.Topic,
		})
	}
}

// refused hands a message that the peer will not take to OnFailure; then it need not be kept.
func (p *parcel) refused(seq uint64, reason *PeerError) {
	if seq == 0 { // of the whole stream: feed ends with the same error
		return
	}
	var message []byte
	batch, err := p.read(seq, 1)
	if err == nil && batch.First == seq && len(batch.Messages) > 0 {
		message = batch.Messages[0]
	}
	p.courier.logger.Error("Message refused by the peer", reason, watermill.LogFields{
		"provider": "buffstreams", "address": p.key.Destination, "topic": p.key.Topic, "sequence": seq,
	})
	if p.courier.onFailure != nil {
		p.courier.onFailure(p.key.Topic, message, reason)
	}
	p.settle(store.Range{First: seq, Last: seq})
}
