package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// With an outbox that is a store.Placer, the messages of a route belong to the topic, and to one of its slots: the
// address is chosen when they are sent, made durable before the first of them goes there, and chosen again when it
// takes nothing or the slot belongs to another. A policy without slots has outboxSlots of them, so that its addresses
// share the load.
const outboxSlots = 16

// placer returns what remembers where an outbox's streams are; nil: nothing does.
func placerOf(o store.Outbox) store.Placer {
	if g, ok := o.(*guardedOutbox); ok {
		if user, ok := g.user.(store.Placer); ok {
			return guardedPlacer{user}
		}
	}
	return nil
}

// guardedPlacer is a Placer of the user's, such that a panic is an error.
type guardedPlacer struct{ user store.Placer }

func (g guardedPlacer) Place(k store.Key) (place store.Place) {
	_ = hook.Call(nameOutbox, func() error { place = g.user.Place(k); return nil }) // the stream begins anywhere then
	return place
}

func (g guardedPlacer) SetPlace(ctx context.Context, k store.Key, p store.Place) error {
	return hook.Call(nameOutbox, func() error { return g.user.SetPlace(ctx, k, p) })
}

// splitByTopic divides messages by their slots; nil if they belong to addresses.
func (p *Publisher) splitByTopic(g *group, messages []*message.Message) (parts []part) {
	if p.relay == nil || p.relay.placer == nil || g.pinned || g.targets[0].addr == nil {
		return nil
	}
	at := map[int]int{} // index of the part of a slot
	for i, msg := range messages {
		slot := g.outboxSlot(msg)
		n, ok := at[slot]
		if !ok {
			n = len(parts)
			at[slot] = n
			topic, name := g.targets[0].topic, g.targets[0].name
			t := &target{topic: topic, name: name, peer: store.TopicKey(topic, name, g.index, slot).Destination}
			parts = append(parts, part{target: t, slot: -1})
		}
		parts[n].add(i, msg)
	}
	return parts
}

// outboxSlot returns the slot that a message belongs to.
func (g *group) outboxSlot(msg *message.Message) int {
	switch {
	case g.policy == route.Failover:
		return -1
	case g.policy == route.Hash && msg != nil && msg.Metadata.Get(g.hashKey) != "":
		return policy.Slot(msg.Metadata.Get(g.hashKey))
	}
	const spread = policy.Slots / outboxSlots
	return int(g.turn.Add(1)%outboxSlots) * spread
}

// placeOf returns the address where a slot's messages should go now; nil: none is ready.
func (g *group) placeOf(slot int) *target {
	g = g.latest()
	if only := g.targets[0]; only.addr == nil { // the topic names its address now
		return only
	}
	candidates := g.candidates(time.Now())
	if slot < 0 {
		if at := g.pickFailover(candidates); at != policy.None {
			return g.targets[at]
		}
		return nil
	}
	if o := g.ownersOf(candidates); o != nil {
		return g.targets[o.of[slot]]
	}
	return nil
}

// routeOf returns a topic's route. It waits for the Resolver as Publish does, but no longer than limit.
func (p *Publisher) routeOf(topic string, limit time.Duration) (*resolved, error) {
	s, err := p.begin(topic)
	if err != nil {
		return nil, err
	}
	defer p.end(s)
	w := p.newCallWait(s, nil)
	if w.timeout == 0 || limit < w.timeout {
		w.timeout = limit
	}
	return p.resolve(w, s)
}

// groupOf returns a group of a topic's route. It waits for the Resolver as Publish does. Where the publisher that
// delivers has no route, it is that of another publisher on the outbox.
func (r *outboxRelay) groupOf(topic string, index int) (*group, error) {
	found, err := r.publisher.routeOf(topic, math.MaxInt64)
	if errors.Is(err, ErrBadTopic) {
		for _, p := range r.users.others(r.publisher) {
			if other, bad := p.routeOf(topic, math.MaxInt64); bad == nil {
				return other.groupAt(topic, index)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return found.groupAt(topic, index)
}

// groupAt is the group that the messages of an outbox are for.
func (r *resolved) groupAt(topic string, index int) (*group, error) {
	if index >= len(r.groups) {
		return nil, fmt.Errorf("buffstreams: the route of %.200q has %d groups of addresses, and messages wait for number %d",
			topic, len(r.groups), index+1)
	}
	return r.groups[index], nil
}

// placement is where the stream of a topic is while it is delivered.
type placement struct {
	*streamRelay
	topic       string
	index, slot int
	addr        *address // that the stream is at; one goroutine at a time has it
}

// errNowhere is why a stream of a topic is not sent.
var errNowhere = errors.New("no address of its route is ready")

// deliverByTopic is deliverOnce for a stream that belongs to a topic.
func (r *streamRelay) deliverByTopic(s store.Stream, topic string, index, slot int) error {
	if r.placer == nil {
		return errors.New("buffstreams: the outbox holds messages of a topic, and does not remember where they went")
	}
	if _, err := r.groupOf(topic, index); err != nil {
		return err
	}
	at := &placement{streamRelay: r, topic: topic, index: index, slot: slot}
	place, err := at.begin()
	if err != nil {
		return err
	}
	defer func() { r.manager.release(at.addr) }()
	id, current := r.currentIdentity(s.Key.Account())
	r.attempt = current
	cfg := sender.FetchConfig{
		Identity: id, Stream: s.ID, Topic: s.Key.Topic, Base: s.First, Sent: s.Sent, Openings: s.Openings, Tenure: place.Tenure,
		OnSettled: r.onSettled, OnRefused: r.onRefused,
	}
	fetched, err := at.addr.sender.Fetch(cfg)
	if err != nil {
		return err
	}
	at.voidElsewhere(cfg)
	moving, stop := context.WithCancel(current)
	moved := make(chan struct{})
	go func() { // ends with stop
		defer close(moved)
		at.follow(moving, fetched)
	}()
	err = r.serve(s, fetched)
	stop()
	<-moved
	return err
}

// voidElsewhere has the other addresses of the route void what an earlier process of the outbox may have left there
// unanswered: they would go on to hand it out. Which of them it was at is not known.
func (at *placement) voidElsewhere(cfg sender.FetchConfig) {
	if cfg.Tenure <= 1 || at.voided {
		return
	}
	at.voided = true
	g, err := at.groupOf(at.topic, at.index)
	if err != nil {
		return // it was there a moment ago
	}
	for _, t := range g.targets {
		if t.addr != nil && t.addr.target.Canonical() != at.addr.target.Canonical() { // of whichever Manager
			t.addr.sender.LeftBehind(cfg)
		}
	}
}

// begin returns where the stream is, or chooses and notes it.
func (at *placement) begin() (store.Place, error) {
	place := at.placer.Place(at.key)
	for place.Address == "" {
		changed := at.manager.changes.wait()
		if t := at.choose(); t != nil {
			place = store.Place{Address: formatAddress(t.at), Tenure: 1}
			if err := at.placer.SetPlace(at.ctx, at.key, place); err != nil {
				return place, err
			}
			break
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
			return place, errNowhere
		case <-at.ctx.Done():
			return place, at.ctx.Err()
		}
	}
	target, err := at.dialed(at.topic, place.Address)
	if err != nil {
		return place, err
	}
	at.addr, err = at.manager.use(target)
	return place, err
}

// dialed is how an address is dialed: as the topic's route says, if that has it and knows the name that its certificate
// must have.
func (r *streamRelay) dialed(topic, address string) (netio.Target, error) {
	target, err := parseAddress(address)
	if err != nil || !target.TLS || !isIP(target.Address) || r.publisher.cfg.Resolver == nil {
		return target, err
	}
	found, err := r.publisher.routeOf(topic, retryPause)
	if err != nil {
		return target, nil //nolint:nilerr // the address says all that is known
	}
	for _, t := range found.targets {
		if t.addr != nil && t.Address == canonical(address) {
			return t.at, nil
		}
	}
	return target, nil
}

// choose returns where the stream should be; nil: there is nowhere better.
func (at *placement) choose() *target {
	g, err := at.groupOf(at.topic, at.index)
	if err != nil {
		return nil
	}
	return g.placeOf(at.slot)
}

const (
	// lookEvery is how often it is looked where a stream should be, though no address has changed.
	lookEvery = time.Second
	// lookSoon is the same while it is on its way.
	lookSoon = 20 * time.Millisecond
)

// follow moves the stream to where it should be, until ctx is done.
func (at *placement) follow(ctx context.Context, fetched *sender.FetchedStream) {
	leaving := false
	for {
		changed, wait := at.manager.changes.wait(), lookEvery
		switch to := at.choose(); {
		case to == nil || canonical(formatAddress(to.at)) == canonical(formatAddress(at.addr.target)), at.addr.target.TLS && !to.at.TLS:
			if leaving {
				fetched.Stay()
			}
			leaving = false
		case fetched.MayMove():
			if err := at.move(ctx, fetched, to); err != nil && ctx.Err() == nil {
				at.logger.Error("Messages of an outbox cannot move to another address", err, at.fields())
			}
		default:
			if leaving = fetched.Leave(); leaving {
				wait = lookSoon
			}
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// move notes the new place, and moves the stream there.
func (at *placement) move(ctx context.Context, fetched *sender.FetchedStream, to *target) error {
	next, err := at.manager.use(to.at)
	if err != nil {
		return err
	}
	place := store.Place{Address: formatAddress(to.at), Tenure: fetched.NextTenure()}
	if err := at.placer.SetPlace(ctx, at.key, place); err != nil {
		at.manager.release(next)
		return err
	}
	from := at.addr
	repeats, ok := fetched.MoveTo(next.sender)
	if !ok {
		at.manager.release(next)
		return nil // it is tried again
	}
	at.addr = next
	at.manager.release(from)
	at.logger.Info("Messages of an outbox move to another address", at.fields().Add(watermill.LogFields{
		"from": from.target.Address, "to": place.Address, "tenure": place.Tenure, "can_come_twice": repeats,
	}))
	return nil
}
