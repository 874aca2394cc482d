package pool

import (
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// newPlainEndpoint listens for plain BuffStreams peers and puts what they send into one topic.
func (m *Manager) newPlainEndpoint(t Target, maxMessageSize int) (*Endpoint, error) {
	e := emptyEndpoint(endpointConfig{AckedConfig: m.acked.cfg, target: t, budget: m.acked.held, logger: m.cfg.Logger})
	source := &plainSource{endpoint: e, topic: e.Topic("")}
	cfg := ListenerConfig{
		Network: t.Network, Address: t.Address, MaxMessageSize: maxMessageSize, Callback: source.receive,
		Insecure: e.cfg.Insecure, MaxConnections: e.cfg.MaxConnections, MaxConnectionsPerHost: e.cfg.MaxConnectionsPerHost,
		HandshakeTimeout: e.cfg.HandshakeTimeout, admit: e.admitPlain,
		Listen: m.cfg.Listen, Logger: m.cfg.Logger,
	}
	if t.TLS {
		if cfg.TLSConfig = e.cfg.ServerTLS; cfg.TLSConfig == nil {
			return nil, configError("AckedConfig.ServerTLS", "is needed to listen at tls://%s", t.Address)
		}
	}
	l, err := ListenTCP(cfg)
	if err != nil {
		return nil, err
	}
	e.bare, e.source = l, source
	return e, l.StartListeningAsync()
}

// plainSource takes messages of plain peers. There is nobody to ack to.
type plainSource struct {
	endpoint *Endpoint
	topic    *dispatch.Topic
	held     atomic.Int64 // messages not settled: they exist nowhere else
}

// receive is the listener's callback. It blocks while the window is full, or while no consumer exists yet.
func (p *plainSource) receive(data []byte) error {
	room := flow.Amount{Messages: 1, Bytes: p.endpoint.size(len(data))}
	if !p.reserve(room) {
		return ErrClosed
	}
	p.held.Add(1)
	p.topic.Append(p, 0, [][]byte{data}, time.Now(), false)
	return nil
}

// reserve waits for room in the window; it returns false when the endpoint closes.
func (p *plainSource) reserve(room flow.Amount) bool {
	w := p.topic.Window()
	if got := w.Take(room); got == room {
		return true
	} else if got != (flow.Amount{}) {
		w.Release(got)
	}
	granted := make(chan struct{})
	claim := &flow.Claim{Want: room, Least: room, Grant: func(flow.Amount) { close(granted) }}
	w.Wait(claim)
	select {
	case <-granted:
		return true
	case <-p.endpoint.abandoned:
	}
	w.Cancel(claim)
	select {
	case <-granted: // it was on its way
		w.Release(room)
	default:
	}
	return false
}

// Settled implements dispatch.Source.
func (p *plainSource) Settled(first, last uint64, _ bool) { p.held.Add(-int64(last - first + 1)) }

// Refused implements dispatch.Source.
func (p *plainSource) Refused(_ uint64, r dispatch.Refusal) {
	p.held.Add(-1)
	p.endpoint.cfg.logger.Error("Message lost: it was refused, and a plain peer cannot be told", nil, watermill.LogFields{
		"provider": provider, "address": p.endpoint.cfg.target.Address, "reason": r.Reason,
	})
}
