package buffstreams

import (
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/pool"
)

// route finds the places that the messages go to.
func (p *Publisher) route(topic string, messages []*message.Message) error {
	d, ok, err := parseTopic(topic)
	if err != nil {
		return &PublishError{Topic: topic, NotSent: messages, Err: err}
	}
	if ok {
		at, err := p.place(topic, d)
		if err != nil {
			return &PublishError{Topic: topic, NotSent: messages, Err: err}
		}
		p.recent.Store(&at)
		return p.send(at, messages)
	}
	route, places, err := p.resolve(topic)
	if err != nil {
		return &PublishError{Topic: topic, NotSent: messages, Err: err}
	}
	return p.spread(route, places, messages)
}

// place is where a topic with an address leads.
func (p *Publisher) place(topic string, d destination) (published, error) {
	if err := checkName(d.name); err != nil {
		return published{}, err
	}
	if p.courier != nil {
		return published{topic: topic, peer: formatAddress(d.target), name: d.name}, nil
	}
	link, err := p.manager.Link(d.target)
	if err != nil {
		return published{}, err
	}
	at := published{topic: topic, link: link, peer: d.target.Address, name: d.name}
	p.use(at)
	return at, nil
}

// use notes where messages went, for Flush and Close. Places from which everything was received are forgotten now and then.
func (p *Publisher) use(at published) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.used[at]; known {
		return
	}
	if p.cfg.OnFailure != nil && !p.links[at.link] {
		at.link.OnRefused(p, func(r pool.Refused) { p.cfg.OnFailure(r.Topic, r.Message, r.Err) })
	}
	p.links[at.link] = true
	if len(p.used) >= p.prune {
		for old := range p.used {
			if old.link.Unreceived(old.name) == 0 {
				delete(p.used, old)
			}
		}
		p.prune = 2*len(p.used) + 64
	}
	p.used[at] = struct{}{}
}

// resolve asks the Resolver for the route of a logical topic.
func (p *Publisher) resolve(topic string) (Route, []published, error) {
	if p.cfg.Resolver == nil {
		return Route{}, nil, fmt.Errorf("%w: %.200q is not an address; set PublisherConfig.Resolver", ErrBadTopic, topic)
	}
	route, err := p.cfg.Resolver.Resolve(topic)
	if err != nil {
		return route, nil, err
	}
	if len(route.Addresses) == 0 {
		return route, nil, fmt.Errorf("%w: the route of %.200q has no address", ErrBadTopic, topic)
	}
	name := route.Name
	if name == "" {
		name = topic
	}
	places := make([]published, len(route.Addresses))
	for i, address := range route.Addresses {
		target, err := parseAddress(address)
		if err != nil {
			return route, nil, err
		}
		if places[i], err = p.place(topic, destination{target, name}); err != nil {
			return route, nil, err
		}
	}
	return route, places, nil
}

// spread sends the messages along a route.
func (p *Publisher) spread(route Route, places []published, messages []*message.Message) error {
	switch {
	case len(places) == 1:
		return p.send(places[0], messages)
	case route.Policy == All:
		var errs []error
		for _, at := range places {
			errs = append(errs, p.send(at, messages))
		}
		return errors.Join(errs...)
	case route.Policy == Failover && p.courier == nil:
		for _, at := range places {
			if at.link.Connected() {
				return p.send(at, messages)
			}
		}
		return p.send(places[0], messages)
	case route.Policy == Failover: // whoever is away gets it when it returns
		return p.send(places[0], messages)
	}
	shares := make([][]*message.Message, len(places))
	for _, msg := range messages {
		i := route.pick(msg, p.turn.Add(1)-1)
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
