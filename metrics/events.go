package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// flow counts messages and their bytes, and how old they were.
type flow struct {
	messages, bytes prometheus.Counter
	age             prometheus.Observer
}

// waits counts waits and their time.
type waits struct {
	count, seconds prometheus.Counter
}

// results counts what has succeeded and what has failed, and the time that it took.
type results struct {
	ok, failed prometheus.Counter
	took       prometheus.Observer
}

// forgets counts streams whose publishers have returned, and were not remembered, and those that were forgotten.
type forgets struct{ returned, away prometheus.Counter }

// moves counts streams that have moved.
type moves struct{ streams, messages, mayRepeat prometheus.Counter }

// ends counts the connections that have begun and ended.
type ends struct{ begun, lost, refused prometheus.Counter }

// failures counts attempts to connect that were not welcomed. A reason has a series once it has occurred.
type failures struct {
	counts  *prometheus.CounterVec
	address string
}

func (f *failures) add(r reason) { f.counts.WithLabelValues(f.address, reasonNames[r]).Inc() }

// events are the series that hooks write to.
type events struct {
	all []prometheus.Collector

	dials       *children[results]  // by address
	failures    *children[failures] // by address
	connections *children[ends]     // by address
	accepted    *children[ends]     // by listener
	resolved    *children[results]  // by topic
	forgotten   *children[forgets]  // by listener
	moved       *children[moves]    // by topic

	sent        *children[flow]  // by address
	received    *children[flow]  // by listener and topic
	duplicates  *children[flow]  // by listener and topic
	settled     *children[flow]  // by address and topic
	handled     *children[flow]  // by topic and group
	windowFull  *children[waits] // by address and topic
	redelivered *children[flow]  // by topic and group
	dead        *children[flow]  // by topic and group
	rejected    *children[flow]  // by address and topic

	appended *children[results] // by outbox
	stored   *children[flow]    // by outbox
	synced   *children[results] // by outbox
}

// maker makes the metrics of events.
type maker struct {
	o   Options
	all []prometheus.Collector
}

func (m *maker) counter(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: m.o.Namespace, Name: name, Help: help, ConstLabels: m.o.ConstLabels,
	}, labels)
	m.all = append(m.all, c)
	return c
}

func (m *maker) histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: m.o.Namespace, Name: name, Help: help, ConstLabels: m.o.ConstLabels, Buckets: m.o.Buckets,
	}, labels)
	m.all = append(m.all, h)
	return h
}

func newEvents(o Options, l *labels) *events {
	m := &maker{o: o}
	e := &events{}
	e.connectionEvents(m, l)
	e.messageEvents(m, l)
	e.consumerEvents(m, l)
	e.outboxEvents(m, l)
	e.all = m.all
	return e
}

func (e *events) connectionEvents(m *maker, l *labels) {
	dials := m.counter("dials_total", "Attempts to connect.", "address", "result")
	e.dials = newChildren(l.addresses, nil, func(p pair) *results {
		return &results{ok: dials.WithLabelValues(p.a, "ok"), failed: dials.WithLabelValues(p.a, "failed")}
	})
	failed := m.counter("connect_failures_total", "Attempts to connect that the peer has not welcomed, by their reason.", "address", "reason")
	e.failures = newChildren(l.addresses, nil, func(p pair) *failures {
		return &failures{failed, p.a}
	})
	connected := m.counter("connections_total", "Connections that a peer has welcomed.", "address")
	lost := m.counter("connections_lost_total", "Connections that were dialed, and have ended.", "address")
	e.connections = newChildren(l.addresses, nil, func(p pair) *ends {
		return &ends{begun: connected.WithLabelValues(p.a), lost: lost.WithLabelValues(p.a)}
	})
	accepted := m.counter("accepted_total", "Connections that a listener has welcomed.", "listener")
	ended := m.counter("accepted_lost_total", "Connections that a listener had welcomed, and have ended.", "listener")
	refused := m.counter("refused_total", "Connections that a listener has refused.", "listener")
	e.accepted = newChildren(l.listeners, nil, func(p pair) *ends {
		return &ends{begun: accepted.WithLabelValues(p.a), lost: ended.WithLabelValues(p.a), refused: refused.WithLabelValues(p.a)}
	})
	resolved := m.counter("resolved_total", "Calls of Resolvers.", "topic", "result")
	took := m.histogram("resolve_seconds", "Time that calls of Resolvers took.")
	e.resolved = newChildren(l.topics, nil, func(p pair) *results {
		return &results{resolved.WithLabelValues(p.a, "ok"), resolved.WithLabelValues(p.a, "failed"), took.WithLabelValues()}
	})
	forgotten := m.counter("forgotten_streams_total",
		"Streams of publishers that a listener has forgotten, or that have returned and were not remembered: these can duplicate.",
		"listener", "returned")
	e.forgotten = newChildren(l.listeners, nil, func(p pair) *forgets {
		return &forgets{returned: forgotten.WithLabelValues(p.a, "true"), away: forgotten.WithLabelValues(p.a, "false")}
	})
	moved := m.counter("moved_streams_total", "Streams that went on at another address.", "topic")
	messages := m.counter("moved_messages_total", "Messages that were not settled when their stream moved.", "topic")
	repeat := m.counter("moved_may_repeat_total", "Messages of these that the receiver before may have handled.", "topic")
	e.moved = newChildren(l.topics, nil, func(p pair) *moves {
		return &moves{moved.WithLabelValues(p.a), messages.WithLabelValues(p.a), repeat.WithLabelValues(p.a)}
	})
}

func (e *events) messageEvents(m *maker, l *labels) {
	sent := m.counter("sent_messages_total", "Messages that were written to a connection, repeated ones included.", "address")
	sentBytes := m.counter("sent_bytes_total", "Bytes of messages that were written to a connection.", "address")
	e.sent = newChildren(l.addresses, nil, func(p pair) *flow {
		return &flow{messages: sent.WithLabelValues(p.a), bytes: sentBytes.WithLabelValues(p.a)}
	})
	received := m.counter("received_messages_total", "Messages that a listener has taken.", "listener", "topic")
	receivedBytes := m.counter("received_bytes_total", "Bytes of messages that a listener has taken.", "listener", "topic")
	e.received = newChildren(l.listeners, l.topics, func(p pair) *flow {
		return &flow{messages: received.WithLabelValues(p.a, p.b), bytes: receivedBytes.WithLabelValues(p.a, p.b)}
	})
	duplicates := m.counter("duplicates_total", "Messages that a listener has dropped, as it had them.", "listener", "topic")
	e.duplicates = newChildren(l.listeners, l.topics, func(p pair) *flow {
		return &flow{messages: duplicates.WithLabelValues(p.a, p.b)}
	})
	settled := m.counter("settled_messages_total", "Messages of which publishers know that they are settled.", "address", "topic")
	age := m.histogram("settle_seconds",
		"Time from Publish until the message was settled, for the oldest message of each answer.", "address")
	e.settled = newChildren(l.addresses, l.topics, func(p pair) *flow {
		return &flow{messages: settled.WithLabelValues(p.a, p.b), age: age.WithLabelValues(p.a)}
	})
	waited := m.counter("window_full_total", "Publish calls that had to wait for room.", "address", "topic")
	seconds := m.counter("window_full_seconds_total", "Time for which Publish calls had to wait for room.", "address", "topic")
	e.windowFull = newChildren(l.addresses, l.topics, func(p pair) *waits {
		return &waits{waited.WithLabelValues(p.a, p.b), seconds.WithLabelValues(p.a, p.b)}
	})
	rejected := m.counter("rejected_total", "Messages that a peer has refused for good.", "address", "topic")
	e.rejected = newChildren(l.addresses, l.topics, func(p pair) *flow {
		return &flow{messages: rejected.WithLabelValues(p.a, p.b)}
	})
}

func (e *events) consumerEvents(m *maker, l *labels) {
	handled := m.counter("handled_messages_total", "Messages that handlers have acked.", "topic", "group")
	handledBytes := m.counter("handled_bytes_total", "Bytes of messages that handlers have acked.", "topic", "group")
	age := m.histogram("handle_seconds",
		"Time from the receipt of a message until its ack, for the oldest message of each run.", "topic", "group")
	e.handled = newChildren(l.topics, l.groups, func(p pair) *flow {
		return &flow{handled.WithLabelValues(p.a, p.b), handledBytes.WithLabelValues(p.a, p.b), age.WithLabelValues(p.a, p.b)}
	})
	redelivered := m.counter("redelivered_total", "Messages that are delivered again after a Nack or a time-out.", "topic", "group")
	e.redelivered = newChildren(l.topics, l.groups, func(p pair) *flow {
		return &flow{messages: redelivered.WithLabelValues(p.a, p.b)}
	})
	dead := m.counter("dead_letters_total", "Messages that have failed for good at a subscriber.", "topic", "group")
	e.dead = newChildren(l.topics, l.groups, func(p pair) *flow { return &flow{messages: dead.WithLabelValues(p.a, p.b)} })
}

func (e *events) outboxEvents(m *maker, l *labels) {
	appends := m.counter("outbox_appends_total", "Calls of Append of an outbox.", "outbox", "result")
	appendSeconds := m.histogram("outbox_append_seconds", "Time that calls of Append took.", "outbox")
	e.appended = newChildren(l.outboxes, nil, func(p pair) *results {
		return &results{appends.WithLabelValues(p.a, "ok"), appends.WithLabelValues(p.a, "failed"), appendSeconds.WithLabelValues(p.a)}
	})
	messages := m.counter("outbox_appended_messages_total", "Messages that are durable in an outbox.", "outbox")
	bytes := m.counter("outbox_appended_bytes_total", "Bytes of messages that are durable in an outbox.", "outbox")
	e.stored = newChildren(l.outboxes, nil, func(p pair) *flow {
		return &flow{messages: messages.WithLabelValues(p.a), bytes: bytes.WithLabelValues(p.a)}
	})
	syncs := m.counter("outbox_syncs_total", "Writes of an outbox to the disk, with their fsync.", "outbox", "result")
	syncSeconds := m.histogram("outbox_sync_seconds", "Time that these writes took.", "outbox")
	e.synced = newChildren(l.outboxes, nil, func(p pair) *results {
		return &results{syncs.WithLabelValues(p.a, "ok"), syncs.WithLabelValues(p.a, "failed"), syncSeconds.WithLabelValues(p.a)}
	})
}

func (r *results) add(err error, took time.Duration) {
	if err != nil {
		r.failed.Inc()
	} else {
		r.ok.Inc()
	}
	if r.took != nil {
		r.took.Observe(took.Seconds())
	}
}

// The hooks.

// OnDialed implements hooks.DialedHook.
func (m *Metrics) OnDialed(e hooks.Dialed) {
	m.events.dials.get(e.Address, "").add(e.Err, e.Took)
	if e.Err != nil {
		m.events.failures.get(e.Address, "").add(reasonOf(e.Err))
	}
}

// OnConnected implements hooks.ConnectedHook.
func (m *Metrics) OnConnected(e hooks.Connected) { m.events.connections.get(e.Address, "").begun.Inc() }

// OnLost implements hooks.LostHook.
func (m *Metrics) OnLost(e hooks.Lost) {
	switch {
	case e.Listener != "":
		m.events.accepted.get(e.Listener, "").lost.Inc()
	case e.Welcomed:
		m.events.connections.get(e.Address, "").lost.Inc()
	default:
		m.events.failures.get(e.Address, "").add(reasonOf(e.Err))
	}
}

// OnAccepted implements hooks.AcceptedHook.
func (m *Metrics) OnAccepted(e hooks.Accepted) { m.events.accepted.get(e.Listener, "").begun.Inc() }

// OnRefused implements hooks.RefusedHook.
func (m *Metrics) OnRefused(e hooks.Refused) { m.events.accepted.get(e.Listener, "").refused.Inc() }

// OnMoved implements hooks.MovedHook.
func (m *Metrics) OnMoved(e hooks.Moved) {
	c := m.events.moved.get(e.Topic, "")
	c.streams.Inc()
	c.messages.Add(float64(e.Messages))
	c.mayRepeat.Add(float64(e.MayRepeat))
}

// OnResolved implements hooks.ResolvedHook.
func (m *Metrics) OnResolved(e hooks.Resolved) { m.events.resolved.get(e.Topic, "").add(e.Err, e.Took) }

// OnForgotten implements hooks.ForgottenHook.
func (m *Metrics) OnForgotten(e hooks.Forgotten) {
	c := m.events.forgotten.get(e.Listener, "")
	if e.Returned {
		c.returned.Add(float64(e.Streams))
	} else {
		c.away.Add(float64(e.Streams))
	}
}

// OnSent implements hooks.SentHook.
func (m *Metrics) OnSent(e hooks.Sent) {
	c := m.events.sent.get(e.Address, "")
	c.messages.Add(float64(e.Messages))
	c.bytes.Add(float64(e.Bytes))
}

// OnReceived implements hooks.ReceivedHook.
func (m *Metrics) OnReceived(e hooks.Received) {
	c := m.events.received.get(e.Listener, e.Topic)
	c.messages.Add(float64(e.Messages))
	c.bytes.Add(float64(e.Bytes))
}

// OnDuplicate implements hooks.DuplicateHook.
func (m *Metrics) OnDuplicate(e hooks.Duplicate) {
	m.events.duplicates.get(e.Listener, e.Topic).messages.Add(float64(e.Messages))
}

// OnSettled implements hooks.SettledHook.
func (m *Metrics) OnSettled(e hooks.Settled) {
	c := m.events.settled.get(e.Address, e.Topic)
	c.messages.Add(float64(e.Messages))
	if e.Age > 0 {
		c.age.Observe(e.Age.Seconds())
	}
}

// OnHandled implements hooks.HandledHook.
func (m *Metrics) OnHandled(e hooks.Handled) {
	c := m.events.handled.get(e.Topic, e.Group)
	c.messages.Add(float64(e.Messages))
	c.bytes.Add(float64(e.Bytes))
	c.age.Observe(e.Age.Seconds())
}

// OnWindowFull implements hooks.WindowFullHook.
func (m *Metrics) OnWindowFull(e hooks.WindowFull) {
	c := m.events.windowFull.get(e.Address, e.Topic)
	c.count.Inc()
	c.seconds.Add(e.Wait.Seconds())
}

// OnRedelivered implements hooks.RedeliveredHook.
func (m *Metrics) OnRedelivered(e hooks.Redelivered) {
	m.events.redelivered.get(e.Topic, e.Group).messages.Inc()
}

// OnDeadLettered implements hooks.DeadLetteredHook.
func (m *Metrics) OnDeadLettered(e hooks.DeadLettered) {
	m.events.dead.get(e.Topic, e.Group).messages.Inc()
}

// OnRejected implements hooks.RejectedHook.
func (m *Metrics) OnRejected(e hooks.Rejected) {
	m.events.rejected.get(e.Address, e.Topic).messages.Inc()
}

// OnOutboxAppended implements hooks.OutboxAppendedHook.
func (m *Metrics) OnOutboxAppended(e hooks.OutboxAppended) {
	m.events.appended.get(e.Outbox, "").add(e.Err, e.Took)
	if e.Err == nil {
		c := m.events.stored.get(e.Outbox, "")
		c.messages.Add(float64(e.Messages))
		c.bytes.Add(float64(e.Bytes))
	}
}

// OnOutboxSynced implements hooks.OutboxSyncedHook.
func (m *Metrics) OnOutboxSynced(e hooks.OutboxSynced) {
	m.events.synced.get(e.Outbox, "").add(e.Err, e.Took)
}
