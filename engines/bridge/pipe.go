package bridge

import (
	"context"
	"encoding/base64"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// pipe is a topic's way through the bridge.
type pipe struct {
	b     *Bridge
	topic Topic
	lanes []chan *message.Message
	seed  maphash.Seed
	seen  *seen
	in    <-chan *message.Message
}

// lookBackTimeout bounds the reading of the destination's last messages.
const lookBackTimeout = time.Minute

// newPipe reads the destination's last messages, and makes the topic there where that is possible.
func (b *Bridge) newPipe(ctx context.Context, topic Topic) (*pipe, error) {
	p := &pipe{b: b, topic: topic, seed: maphash.MakeSeed(), seen: newSeen(b.cfg.LookBack)}
	if b.cfg.LookBack > 0 {
		ctx, cancel := context.WithTimeout(ctx, lookBackTimeout)
		defer cancel()
		ids, _, err := b.to.Recent(ctx, topic.To, b.cfg.LookBack)
		if err != nil {
			return nil, fmt.Errorf("bridge: the last messages of the destination's topic %.200q: %w", topic.To, err)
		}
		p.seen = newSeen(b.cfg.LookBack + len(ids)) // so that what is forwarded now displaces none of them
		for _, id := range ids {
			p.seen.add(id)
		}
	}
	for range b.cfg.Lanes {
		p.lanes = append(p.lanes, make(chan *message.Message, b.cfg.MaxInFlight))
	}
	return p, nil
}

func (p *pipe) subscribe(ctx context.Context) error {
	sub, err := p.b.from.Subscriber()
	if err == nil {
		p.in, err = sub.Subscribe(ctx, p.topic.From)
	}
	if err != nil {
		return fmt.Errorf("bridge: subscribe to the source's topic %.200q: %w", p.topic.From, err)
	}
	return nil
}

// run moves messages to the lanes until the subscription has ended, and waits for the lanes.
func (p *pipe) run(delivering context.Context) {
	var lanes sync.WaitGroup
	for _, in := range p.lanes {
		lanes.Go(func() { (&lane{pipe: p, in: in, trouble: p.newTrouble()}).run(delivering) }) // ends when in is closed and empty, or with delivering
	}
	for msg := range p.in {
		p.b.counts.received.Add(1)
		id := identify(msg)
		if p.seen.has(id) {
			p.b.counts.skipped.Add(1)
			msg.Ack()
			continue
		}
		if id != "" {
			msg.SetContext(driver.WithID(msg.Context(), id))
		}
		p.b.counts.inHand.Add(1)
		p.lanes[p.laneOf(msg)] <- msg // it has room for all that may be in flight
	}
	for _, in := range p.lanes {
		close(in)
	}
	lanes.Wait()
}

// laneOf puts messages with the same key into the same lane.
func (p *pipe) laneOf(msg *message.Message) int {
	if len(p.lanes) == 1 {
		return 0
	}
	key := msg.Metadata.Get(p.b.cfg.Key)
	return int(maphash.String(p.seed, key) % uint64(len(p.lanes)))
}

// identify returns the name of a message at its source, the same at each delivery: its place in the engine, or in its
// publisher's stream, or else its UUID. Empty where it has none of them: then nothing tells it from others.
func identify(msg *message.Message) string {
	if id := driver.ID(msg); id != "" {
		return id
	}
	if at, ok := buffstreams.PositionFromContext(msg.Context()); ok {
		// Not the epoch: an outbox that was opened again sends the same messages under another.
		return "bs/" + base64.RawURLEncoding.EncodeToString(at.Publisher[:]) + "/" + strconv.FormatUint(at.Stream, 10) + "/" + strconv.FormatUint(at.Sequence, 10)
	}
	if msg.UUID == "" {
		return ""
	}
	return "uuid/" + msg.UUID
}
