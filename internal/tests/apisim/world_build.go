package apisim

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// This file has every use of the library's constructors, and the names that may move.
type (
	manager     = *buffstreams.Manager
	box         = *outbox.Outbox
	streamID    = store.StreamID
	streamState = store.StreamState
	streamRange = store.Range
)

var errTopicGone, errPublisherClosed, errUndelivered = buffstreams.ErrTopicGone, buffstreams.ErrPublisherClosed, buffstreams.ErrUndelivered

// newManager makes a process's Manager.
func (w *world) newManager(proc *process, limit int, groups map[string][]string, view *storeView) (manager, error) {
	return buffstreams.NewManager(w.managerConfig(proc, limit, groups, view))
}

func (w *world) managerConfig(proc *process, limit int, groups map[string][]string, view *storeView) buffstreams.ManagerConfig {
	s := &w.p.Shape
	cfg := buffstreams.ManagerConfig{
		Dial: w.userDial(proc), Listen: w.userListen(proc), CloseTimeout: w.managerCloseTimeout(),
		OnFailure: func(topic string, encoded []byte, err error) { w.onFailure(proc, proc.name, topic, encoded, err) },
		Acked: buffstreams.AckedConfig{
			Insecure: true, MaxMessageSize: limit, Groups: groups, HandshakeTimeout: time.Second, WriteTimeout: 2 * time.Second,
			PingAfter: time.Second, DeadAfter: 3 * time.Second,
			Reconnect: &buffstreams.ReconnectConfig{BackOff: w.backOffs(proc)},
		},
	}
	if view != nil {
		cfg.Acked.Dedupe = view
	}
	if s.Moves.On {
		cfg.Acked.MoveAfter = s.Moves.MoveAfter
	}
	if s.Tight {
		if limit == 0 {
			cfg.Acked.MaxMessageSize = 8 << 10
		}
		cfg.Acked.WindowMessages, cfg.Acked.WindowBytes, cfg.Acked.MemoryLimit = 8, 32<<10, 48<<10
	}
	if s.Rude == "backoff-stops" {
		cfg.Acked.Reconnect.BackOff = func() backoff.BackOff { return &backoff.StopBackOff{} }
	}
	return cfg
}

func (w *world) userDial(proc *process) pool.DialFunc {
	dial := w.net.dialer(proc)
	dials := 0
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if w.callback("dial") {
			return nil, errors.New("apisim: the dialer fails")
		}
		w.mu.Lock()
		dials++
		bad := w.rude("dial-nil", dials)
		w.mu.Unlock()
		if bad {
			return nil, nil
		}
		return dial(ctx, network, address)
	}
}

func (w *world) userListen(proc *process) pool.ListenFunc {
	listen, listened := w.net.listen(proc), false
	return func(network, address string) (net.Listener, error) {
		if w.callback("listen") {
			return nil, errors.New("apisim: listening fails")
		}
		if w.p.Shape.Rude == "listen-nil" && !listened && !w.isTame() {
			listened = true
			return nil, nil
		}
		return listen(network, address)
	}
}

func (w *world) publisherConfig(p *publisher) buffstreams.PublisherConfig {
	plan := p.plan
	cfg := buffstreams.PublisherConfig{
		Manager: p.life.manager, Marshaler: marshaler{w},
		Confirm:        []buffstreams.Confirm{buffstreams.ConfirmReceived, buffstreams.ConfirmEnqueued, buffstreams.ConfirmHandled}[plan.Confirm],
		PublishTimeout: plan.PublishTimeout, CloseTimeout: plan.CloseTimeout,
		OnFailure: func(topic string, encoded []byte, err error) { w.onFailure(p.life.proc, p.name(), topic, encoded, err) },
	}
	if p.life.box != nil {
		cfg.Outbox = p.life.box
	}
	if plan.Logical {
		cfg.Resolver = route.Func(w.resolve)
	}
	if w.routes != nil && plan.Logical {
		cfg.Resolver = w.movesResolver()
	}
	if plan.Plain {
		cfg.Wire, cfg.Confirm, cfg.MaxMessageSize, cfg.Marshaler = buffstreams.WireBuffStreams, buffstreams.ConfirmEnqueued, 16<<10, nil
	}
	if p.life.manager == nil {
		cfg.ManagerConfig = w.managerConfig(p.life.proc, 0, nil, nil)
	}
	return cfg
}

func (w *world) newPublisher(p *publisher) (api, error) {
	return buffstreams.NewPublisher(w.publisherConfig(p), nil)
}

func (w *world) subscriberConfig(s *subscriber) buffstreams.SubscriberConfig {
	plan := s.plan
	cfg := buffstreams.SubscriberConfig{
		Manager: s.life.manager, Unmarshaler: marshaler{w}, ListenAddress: w.address(s.life.of.n),
		ConsumerGroup: plan.Group, Ephemeral: plan.Ephemeral, MaxInFlight: plan.InFlight, AckWaitTimeout: plan.AckWait,
		CloseTimeout: plan.CloseTimeout, MaxAttempts: plan.Attempts, EmitUndecodable: plan.Emit,
		NackResendSleep: 20 * time.Millisecond, NackResendCap: 200 * time.Millisecond,
	}
	if !plan.NoHook {
		cfg.OnFailure = func(m *message.Message, reason error) { w.subFailure(s, m, reason) }
	}
	if plan.Key {
		cfg.Key = w.key
	}
	if plan.DeadLetter {
		cfg.DeadLetter, cfg.DeadLetterTopic = deadLetters{w}, "dead"
	}
	if s.life.manager == nil {
		cfg.ManagerConfig = w.managerConfig(s.life.proc, s.life.limit, s.life.groups, s.life.store)
	}
	return cfg
}

func (w *world) newSubscriber(s *subscriber) (subscribing, error) {
	return buffstreams.NewSubscriber(w.subscriberConfig(s), nil)
}

// newVisitor is a Subscriber that sends to handled when it has acked a message.
func (w *world) newVisitor(address string) (subscribing, <-chan struct{}, error) {
	proc := &process{name: "visitor"}
	cfg := buffstreams.SubscriberConfig{CloseTimeout: time.Second, ManagerConfig: w.managerConfig(proc, 0, nil, nil)}
	cfg.ManagerConfig.Listen = w.net.listen(proc)
	sub, err := buffstreams.NewSubscriber(cfg, nil)
	if err != nil {
		return nil, nil, err
	}
	messages, err := sub.Subscribe(context.Background(), address+"/x")
	if err != nil {
		return nil, nil, errors.Join(err, sub.Close())
	}
	handled := make(chan struct{}, 1)
	go func() { // ends with sub
		for m := range messages {
			m.Ack()
			select {
			case handled <- struct{}{}:
			default: // it comes again
			}
		}
	}()
	return sub, handled, nil
}

// newPubSub makes both ends in one.
func (w *world) newPubSub(s *subscriber, p *publisher) (both, error) {
	cfg := buffstreams.PubSubConfig{
		Address: w.address(s.life.of.n), Subscriber: w.subscriberConfig(s),
		Manager: w.managerConfig(s.life.proc, s.life.limit, s.life.groups, s.life.store),
	}
	if p != nil {
		cfg.Publisher = w.publisherConfig(p)
	}
	return buffstreams.NewPubSub(cfg, nil)
}

func (w *world) resolve(_ context.Context, topic string) (route.Route, error) {
	if w.callback("resolve") {
		return route.Route{}, errors.New("apisim: the resolver fails")
	}
	w.mu.Lock()
	to, n := w.route, len(w.messages)
	if w.rerouted {
		w.moved = time.Now()
	}
	w.mu.Unlock()
	switch {
	case w.isTame(): // what it does for ever is tried for ever
	case w.rude("resolve-panics", n):
		panic("apisim: resolver")
	case w.rude("resolve-nothing", n):
		return route.Route{Addresses: []string{""}}, nil
	}
	return route.Route{Addresses: []string{w.address(to)}, Name: topic}, nil
}

// undelivered is the sum of what an error counts.
func undelivered(err error) (n int) {
	joined(err, func(e error) {
		if u, ok := e.(*buffstreams.UndeliveredError); ok { //nolint:errorlint // joined walks the tree
			n += u.Count
		}
	})
	return n
}

// publishErrors are the lists of an error of Publish.
func publishErrors(err error) (all []publishError) {
	joined(err, func(e error) {
		if p, ok := e.(*buffstreams.PublishError); ok { //nolint:errorlint // joined walks the tree
			all = append(all, publishError{p.NotSent, p.Unknown})
		}
	})
	return all
}

// uuidOf is the UUID of an encoded message.
func uuidOf(data []byte) string {
	if m, err := (buffstreams.EnvelopeMarshaler{}).Unmarshal("", data); err == nil && m != nil {
		return m.UUID
	}
	return ""
}

// undecodable reports whether a message was emitted with its raw bytes.
func undecodable(m *message.Message) bool { return m.Metadata.Get(buffstreams.UndecodableKey) != "" }

func openBox(dir string) (box, error) {
	return outbox.Open(outbox.Config{Dir: dir, SegmentBytes: 1 << 20})
}

// spentAttempts is how many attempts an error of a subscriber says that a message had, or 0.
func spentAttempts(err error) int {
	var spent *buffstreams.AttemptsExhaustedError
	if errors.As(err, &spent) {
		return spent.Attempts
	}
	return 0
}

// boxPending are the messages that wait in an outbox, encoded.
func boxPending(b box) (all [][]byte) {
	for _, s := range b.Streams() {
		for from := s.First; from < s.Next; {
			batch, err := b.Read(s.Key, from, 1<<20)
			if err != nil || len(batch.Messages) == 0 {
				break
			}
			all = append(all, batch.Messages...)
			from = batch.Next()
		}
	}
	return all
}

// slowMarshal is how long a slow marshaler takes.
const slowMarshal = 300 * time.Millisecond

// marshaling is what a slow marshaler, the caller's own computation, adds to the time of a call with n messages.
func (w *world) marshaling(n int) time.Duration {
	if w.p.Shape.Rude != "marshal-slow" {
		return 0
	}
	return time.Duration(n) * slowMarshal
}

// marshaler is the user's, for both directions.
type marshaler struct{ w *world }

func (m marshaler) Marshal(dst []byte, topic string, msg *message.Message) ([]byte, error) {
	if m.w.callback("marshal") {
		return dst, errors.New("apisim: marshaling fails")
	}
	id := idOf(msg)
	switch {
	case m.w.rude("marshal-panics", id):
		panic("apisim: marshaler")
	case m.w.rude("marshal-slow", id):
		time.Sleep(slowMarshal)
	case m.w.rude("marshal-nil", id):
		return nil, nil
	case m.w.rude("marshal-error", id):
		return nil, errors.New("apisim: this message cannot be marshaled")
	case m.w.rude("marshal-own-bytes", id): // as the marshalers of other Pub/Subs do
		return buffstreams.EnvelopeMarshaler{}.Marshal(nil, topic, msg)
	}
	return buffstreams.EnvelopeMarshaler{}.Marshal(dst, topic, msg)
}

func (m marshaler) Unmarshal(topic string, data []byte) (*message.Message, error) {
	if m.w.callback("unmarshal") {
		return nil, errors.New("apisim: unmarshaling fails")
	}
	msg, err := buffstreams.EnvelopeMarshaler{}.Unmarshal(topic, data)
	if err != nil {
		return nil, err
	}
	id := idOf(msg)
	switch {
	case m.w.rude("unmarshal-panics", id):
		panic("apisim: unmarshaler")
	case m.w.rude("unmarshal-nil", id):
		return nil, nil
	case m.w.rude("unmarshal-literal", id):
		return &message.Message{UUID: msg.UUID, Payload: msg.Payload, Metadata: msg.Metadata}, nil
	case m.w.rude("unmarshal-error", id):
		return nil, errors.New("apisim: this message cannot be unmarshaled")
	case m.w.rude("nil-metadata", id):
		msg.Metadata = nil
	}
	return msg, nil
}
