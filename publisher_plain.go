package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// plainPublisher writes to plain BuffStreams peers. They have neither acks nor topic names: a message is confirmed when
// the writer took it.
type plainPublisher struct {
	publisher *Publisher

	mu      sync.Mutex
	dialing map[netio.Target]*sync.Mutex // an address is dialed by one Publish at a time
}

func newPlainPublisher(p *Publisher) *plainPublisher {
	return &plainPublisher{publisher: p, dialing: map[netio.Target]*sync.Mutex{}}
}

// publish writes the messages to the topic's address; of a route, to the first that takes them.
func (p *plainPublisher) publish(s *topicState, messages []*message.Message) error {
	topic := s.topic
	targets, err := p.targets(s)
	if err != nil {
		return &PublishError{Topic: topic, NotSent: messages, Err: err}
	}
	buf := make([]byte, 0, 512)
	for i, msg := range messages {
		if buf, err = p.publisher.marshal(buf[:0], topic, msg); err != nil {
			return &PublishError{Topic: topic, NotSent: messages[i:], Err: err}
		}
		if limit := p.publisher.cfg.MaxMessageSize; len(buf) > limit {
			err := &TooLargeError{UUID: msg.UUID, Size: len(buf), Limit: limit}
			return &PublishError{Topic: topic, Peer: targets[0].Address, NotSent: messages[i:], Err: err}
		}
		if err = p.writeFirst(targets, buf); err != nil {
			return &PublishError{Topic: topic, Peer: targets[0].Address, NotSent: messages[i:], Err: err}
		}
	}
	return nil
}

// targets finds the addresses of a topic.
func (p *plainPublisher) targets(s *topicState) ([]netio.Target, error) {
	topic := s.topic
	d, ok, err := parseTopic(topic, p.publisher.cfg.Resolver != nil)
	switch {
	case err != nil:
		return nil, err
	case ok && d.name != "":
		return nil, fmt.Errorf("%w: the plain wire has no topic names, so that %.200q would reach its address without one; use host:port", ErrBadTopic, topic)
	case ok:
		return []netio.Target{d.target}, nil
	}
	found, err := p.publisher.lookUp(s)
	if err != nil {
		return nil, err
	}
	targets := make([]netio.Target, len(found.Addresses))
	for i, address := range found.Addresses {
		if targets[i], err = parseAddress(address); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

func (p *plainPublisher) writeFirst(targets []netio.Target, data []byte) error {
	var errs []error
	for _, t := range targets {
		err := p.write(t, data)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// write hands one message to the address's writer, which it dials the first time.
func (p *plainPublisher) write(t netio.Target, data []byte) error {
	m, key := p.publisher.manager.plain, formatAddress(t) // tells TLS from plaintext
	_, err := m.Write(key, data)
	if !errors.Is(err, pool.ErrNotOpened) {
		return err
	}
	p.mu.Lock()
	turn := p.dialing[t]
	if turn == nil {
		turn = &sync.Mutex{}
		p.dialing[t] = turn
	}
	p.mu.Unlock()
	turn.Lock()
	defer turn.Unlock()
	if _, err = m.Write(key, data); !errors.Is(err, pool.ErrNotOpened) {
		return err
	}
	cfg, err := p.config(t)
	if err != nil {
		return err
	}
	if err = m.Dial(cfg); err != nil && !errors.Is(err, pool.ErrAlreadyOpened) {
		return err
	}
	_, err = m.Write(key, data)
	return err
}

func (p *plainPublisher) config(t netio.Target) (cfg pool.WriterConfig, err error) {
	cfg = pool.WriterConfig{
		Network: t.Network, Address: t.Address, Key: formatAddress(t), MaxMessageSize: p.publisher.cfg.MaxMessageSize,
		CloseTimeout: p.publisher.cfg.CloseTimeout,
	}
	if cfg.TLSConfig, err = p.publisher.manager.clientTLS(t); err != nil {
		return cfg, err
	}
	if p.publisher.cfg.OnFailure != nil {
		cfg.OnFailure = func(failed pool.Failure) { p.publisher.failures.add(failed.Address, failed.Payload, failed.Err) }
	}
	return cfg, nil
}

// flush waits until everything written so far is with the kernel: a plain peer says no more.
func (p *plainPublisher) flush(ctx context.Context) error {
	p.mu.Lock()
	targets := make([]netio.Target, 0, len(p.dialing))
	for t := range p.dialing {
		targets = append(targets, t)
	}
	p.mu.Unlock()
	var errs []error
	for _, t := range targets {
		if err := p.publisher.manager.plain.Flush(ctx, formatAddress(t)); err != nil && !errors.Is(err, pool.ErrNotOpened) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
