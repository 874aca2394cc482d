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
	"github.com/buffstreams/watermill-buffstreams/engines/internal/consume"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// pipe is a topic's way through the bridge.
type pipe struct {
	b     *Bridge
	topic Topic
	lanes []chan []*held
	seed  maphash.Seed
	acks  acks
	seen  *seen
	in    <-chan *message.Message
	// stream is the one that the last message came from, and prefix what the names of its messages begin with.
	stream store.Position
	prefix string
}

// lookBackTimeout bounds the making of the destination's topic, and the reading of its last messages.
const lookBackTimeout = time.Minute

// newPipe makes the destination's topic where that is possible, and reads its last messages.
func (b *Bridge) newPipe(ctx context.Context, topic Topic) (*pipe, error) {
	p := &pipe{b: b, topic: topic, seed: maphash.MakeSeed(), seen: newSeen(b.cfg.LookBack)}
	ctx, cancel := context.WithTimeout(ctx, lookBackTimeout)
	defer cancel()
	if err := b.to.Declare(ctx, topic.To); err != nil {
		return nil, fmt.Errorf("bridge: the destination's topic %.200q: %w", topic.To, err)
	}
	if b.cfg.LookBack > 0 {
		ids, _, err := b.to.Recent(ctx, topic.To, b.cfg.LookBack)
		if err != nil {
			return nil, fmt.Errorf("bridge: the last messages of the destination's topic %.200q: %w", topic.To, err)
		}
		p.seen = newSeen(b.cfg.LookBack + len(ids)) // so that what is forwarded now displaces none of them
		for _, id := range ids {
			p.seen.add([]*held{{id: id}})
		}
	}
	for range b.cfg.Lanes {
		p.lanes = append(p.lanes, make(chan []*held, b.cfg.MaxInFlight)) // room for all that may be in flight
	}
	return p, nil
}

func (p *pipe) subscribe(ctx context.Context) error {
	sub, err := p.b.from.Subscriber()
	if err == nil {
		p.in, err = sub.Subscribe(consume.Unchanged(ctx), p.topic.From)
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
	for open := true; open; {
		var messages []*held
		if messages, open = p.gather(); len(messages) > 0 {
			p.spread(messages)
		}
	}
	for _, in := range p.lanes {
		close(in)
	}
	lanes.Wait()
}

// gathered is how many messages are moved at a time.
const gathered = 256

// gather waits for a message, and takes what has come beside it. open is false when the subscription has ended.
func (p *pipe) gather() (messages []*held, open bool) {
	msg, open := <-p.in
	if !open {
		return nil, false
	}
	some := make([]held, 0, min(1+len(p.in), gathered)) // one piece of memory for all
	for open {
		some = append(some, held{msg: msg})
		messages = append(messages, &some[len(some)-1])
		if len(some) == cap(some) {
			return messages, true
		}
		msg, open = <-p.in // it is there, or comes with the end
	}
	return messages, open
}

// spread gives messages to the lanes, but those that the destination has already.
func (p *pipe) spread(messages []*held) {
	p.b.counts.received.Add(int64(len(messages)))
	p.acks.add(messages)
	byLane := make([][]*held, len(p.lanes))
	byLane[0] = messages[:0]
	skipped := 0
	for _, h := range messages {
		if h.id = p.identify(h.msg); p.seen.has(h.id) {
			skipped++
			p.acks.confirm(h)
			continue
		}
		if h.id != "" {
			h.msg.SetContext(driver.WithID(h.msg.Context(), h.id))
		}
		h.size = driver.Size(h.msg)
		i := p.laneOf(h.msg)
		byLane[i] = append(byLane[i], h)
	}
	p.b.counts.skipped.Add(int64(skipped))
	p.b.counts.inHand.Add(int64(len(messages) - skipped))
	for i, some := range byLane {
		if len(some) > 0 {
			p.lanes[i] <- some
		}
	}
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
func (p *pipe) identify(msg *message.Message) string {
	if id := driver.ID(msg); id != "" {
		return id
	}
	at, ok := buffstreams.PositionFromContext(msg.Context())
	switch {
	case !ok && msg.UUID == "":
		return ""
	case !ok:
		return "uuid/" + msg.UUID
	}
	// Not the epoch: an outbox that was opened again sends the same messages under another.
	if p.prefix == "" || at.Publisher != p.stream.Publisher || at.Stream != p.stream.Stream {
		p.stream, p.prefix = at, "bs/"+base64.RawURLEncoding.EncodeToString(at.Publisher[:])+"/"+strconv.FormatUint(at.Stream, 10)+"/"
	}
	var number [20]byte
	return p.prefix + string(strconv.AppendUint(number[:0], at.Sequence, 10))
}
