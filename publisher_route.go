package buffstreams

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// place is a stream's far end: where messages of a topic go to.
type place struct {
	topic string
	link  *sender.Sender // nil with an outbox
	peer  string
	name  string // of the topic on the wire
}

// unreceived is the number of messages that it is not known to have.
func (at *place) unreceived() int {
	if at.link == nil {
		return 0
	}
	return at.link.Unreceived(at.name)
}

// way is where a topic led when it was looked up last. It never changes.
type way struct {
	asks   bool // the Resolver has to be asked each time
	route  Route
	places []*place
}

// road is what a Publisher remembers of a topic.
type road struct {
	topic  string
	calls  atomic.Int32 // Publish calls that are on it, or forgotten
	way    atomic.Pointer[way]
	former []*place // of earlier ways. The Publisher's mutex guards it.
}

// forgotten is the number of calls of a road that takes no more.
const forgotten = math.MinInt32 / 2

// enter begins a call on the road, unless it is forgotten.
func (r *road) enter() bool {
	if r.calls.Add(1) > 0 {
		return true
	}
	r.calls.Add(-1)
	return false
}

// forget makes the road take no more calls, unless something is under way on it. p.mu is held.
func (r *road) forget() bool {
	if !r.calls.CompareAndSwap(0, forgotten) {
		return false
	}
	if len(r.busy()) > 0 {
		r.calls.Add(-forgotten)
		return false
	}
	return true
}

// road returns the road of a topic, and makes it where there is none: roads on which nothing is under way are forgotten now
// and then.
func (p *Publisher) road(topic string) *road {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.roads[topic]
	if r == nil {
		if len(p.roads) >= p.prune {
			maps.DeleteFunc(p.roads, func(_ string, r *road) bool { return r.forget() })
			p.prune = 2*len(p.roads) + 64
		}
		r = &road{topic: topic}
		p.roads[topic] = r
	}
	p.last.Store(r)
	return r
}

// busy returns the places that are not known to have received everything. p.mu is held.
func (r *road) busy() (places []*place) {
	all := r.former
	if w := r.way.Load(); w != nil {
		all = append(all[:len(all):len(all)], w.places...)
	}
	for _, at := range all {
		if at.unreceived() > 0 {
			places = append(places, at)
		}
	}
	return places
}

// busy returns the places that are not known to have received everything, each once.
func (p *Publisher) busy() (places []*place) {
	type stream struct {
		link *sender.Sender
		name string
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[stream]bool{}
	for _, r := range p.roads {
		for _, at := range r.busy() {
			if s := (stream{at.link, at.name}); !seen[s] {
				seen[s] = true
				places = append(places, at)
			}
		}
	}
	return places
}

// way returns where the topic of a road leads now.
func (p *Publisher) way(r *road, topic string) (*way, error) {
	last := r.way.Load()
	if last != nil && !last.asks {
		return last, nil
	}
	if last == nil {
		d, ok, err := parseTopic(topic)
		if err != nil {
			return nil, err
		}
		if ok {
			return p.addressed(r, topic, d)
		}
	}
	route, err := p.resolve(topic)
	if err != nil || last != nil && last.route.equal(route) {
		return last, err
	}
	_, fixed := p.cfg.Resolver.(StaticResolver)
	w := &way{asks: !fixed, route: route}
	w.route.Addresses = slices.Clone(route.Addresses) // a Resolver may write to its own
	if w.places, err = p.destinations(topic, route); err != nil {
		return nil, err
	}
	p.keep(r, w)
	return w, nil
}

// addressed makes the way of a topic that names its address.
func (p *Publisher) addressed(r *road, topic string, d destination) (*way, error) {
	at, err := p.place(topic, d)
	if err != nil {
		return nil, err
	}
	w := &way{places: []*place{at}}
	p.keep(r, w)
	return w, nil
}

// keep makes w the way of a road. Flush and Close go on to look at the earlier one's places.
func (p *Publisher) keep(r *road, w *way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.former = r.busy()
	r.way.Store(w)
	for _, at := range w.places {
		if at.link == nil || p.links[at.link] {
			continue
		}
		p.links[at.link] = true
		if p.cfg.OnFailure != nil {
			at.link.OnRefused(p, func(r session.Refused) { p.cfg.OnFailure(r.Topic, r.Message, r.Err) })
		}
	}
}

// place is where a topic with an address leads.
func (p *Publisher) place(topic string, d destination) (*place, error) {
	if err := checkName(d.name); err != nil {
		return nil, err
	}
	if p.courier != nil {
		return &place{topic: topic, peer: formatAddress(d.target), name: d.name}, nil
	}
	link, err := p.manager.sender(d.target)
	if err != nil {
		return nil, err
	}
	return &place{topic: topic, link: link, peer: d.target.Address, name: d.name}, nil
}

// resolve asks the Resolver for the route of a logical topic.
func (p *Publisher) resolve(topic string) (Route, error) {
	if p.cfg.Resolver == nil {
		return Route{}, fmt.Errorf("%w: %.200q is not an address; set PublisherConfig.Resolver", ErrBadTopic, topic)
	}
	route, err := p.cfg.Resolver.Resolve(topic)
	if err == nil && len(route.Addresses) == 0 {
		err = fmt.Errorf("%w: the route of %.200q has no address", ErrBadTopic, topic)
	}
	return route, err
}

// destinations are the places of a route.
func (p *Publisher) destinations(topic string, route Route) ([]*place, error) {
	name := route.Name
	if name == "" {
		name = topic
	}
	places := make([]*place, len(route.Addresses))
	for i, address := range route.Addresses {
		target, err := parseAddress(address)
		if err != nil {
			return nil, err
		}
		if places[i], err = p.place(topic, destination{target, name}); err != nil {
			return nil, err
		}
	}
	return places, nil
}

// spread sends the messages along a way.
func (p *Publisher) spread(w *way, messages []*message.Message) error {
	places := w.places
	switch {
	case len(places) == 1:
		return p.send(places[0], messages)
	case w.route.Policy == All:
		var errs []error
		for _, at := range places {
			errs = append(errs, p.send(at, messages))
		}
		return errors.Join(errs...)
	case w.route.Policy == Failover && p.courier == nil:
		for _, at := range places {
			if at.link.Connected() {
				return p.send(at, messages)
			}
		}
		return p.send(places[0], messages)
	case w.route.Policy == Failover: // whoever is away gets it when it returns
		return p.send(places[0], messages)
	}
	shares := make([][]*message.Message, len(places))
	for _, msg := range messages {
		i := w.route.pick(msg, p.turn.Add(1)-1)
		shares[i] = append(shares[i], msg)
	}
	var errs []error
	for i, share := range shares {
		if len(share) > 0 {
			errs = append(errs, p.send(places[i], share))
		}
	}
	return errors.Join(errs...)
}
