package apisim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Shape is who there is and how it is configured. Not every shape knows every fault: what one fault hides another seed
// shows.
type Shape struct {
	Latency   time.Duration
	Room      int  // bytes that a direction of a connection takes
	Tight     bool // windows and budgets bind
	Abrupt    bool // at the end everything is closed with what it has
	Receivers []receiverPlan
	Senders   []senderPlan
	Topics    int // of each receiver

	Faults    bool // of the network
	Kills     bool
	Closes    bool // in the middle of it
	Groups    bool // come and go
	Blocks    bool // callbacks block for a while
	Fails     bool // callbacks fail for a while
	Rude      rude // one callback that is never right
	Churn     bool
	Routes    bool // the logical topic moves
	Oversized bool // messages over a receiver's limit
	Limits    bool // are lowered by a restart
	Swaps     bool // subscriptions end and begin in the same moment
	Copies    bool // of outboxes
	SlowStore bool // Save takes its time

	Moves movesPlan // zero: no route has several hosts at a time

	PeerLimit int // MaxMessageSize of the receivers; 0: as the senders'
}

// rude is a callback that misbehaves for some messages.
type rude string

// rudeWays are what a callback can do. Those of a kind begin with its name.
var rudeWays = []rude{
	"marshal-panics", "marshal-own-bytes", "marshal-nil", "marshal-error", "marshal-slow", "marshal-slow",
	"unmarshal-panics", "unmarshal-nil", "unmarshal-literal", "unmarshal-error",
	"key-panics", "resolve-panics", "resolve-nothing", "onfailure-panics", "onfailure-publishes",
	"backoff-stops", "dial-nil", "listen-nil", "dedupe-panics", "deadletter-panics", "subfailure-panics", "nil-metadata",
}

type receiverKind string

const (
	private receiverKind = "private" // a Subscriber with a Manager of its own
	shared  receiverKind = "shared"  // several Subscribers on one Manager
	pubsub  receiverKind = "pubsub"
)

type receiverPlan struct {
	Kind     receiverKind
	Router   bool
	Dedupe   bool
	Declared bool // the named groups are
	Subs     []subscriberPlan
}

type subscriberPlan struct {
	Group        string
	InFlight     int
	Key          bool
	Attempts     int
	DeadLetter   bool
	Emit         bool
	Ephemeral    bool
	AckWait      time.Duration
	NoHook       bool // no OnFailure: its publisher alone hears of what failed
	CloseTimeout time.Duration
}

type senderPlan struct {
	Shared bool // one Manager for its publishers
	With   int  // the receiver whose Manager it shares; -1: none
	Outbox bool
	Pubs   []publisherPlan
}

type publisherPlan struct {
	Confirm        int // 0 received, 1 enqueued, 2 handled
	PublishTimeout time.Duration
	CloseTimeout   time.Duration
	Logical        bool // it has a Resolver
	Plain          bool
	Ephemeral      bool // sends to the ephemeral topic as well
}

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

func newShape(r *rand.Rand) Shape {
	s := Shape{
		Latency: pick(r, 100*time.Microsecond, time.Millisecond, 10*time.Millisecond), Room: pick(r, 1<<10, 64<<10),
		Topics: 1 + r.IntN(2), Tight: chance(r, 20), Abrupt: chance(r, 35),
		Faults: chance(r, 30), Kills: chance(r, 30), Closes: chance(r, 45), Groups: chance(r, 30), Blocks: chance(r, 15),
		Fails: chance(r, 15), Churn: chance(r, 5), Routes: chance(r, 10), Oversized: chance(r, 8), Limits: chance(r, 6),
		Swaps: chance(r, 10), Copies: chance(r, 5), SlowStore: chance(r, 30),
	}
	if chance(r, 12) {
		s.Rude = pick(r, rudeWays...)
	}
	switch s.Rude {
	case "marshal-slow":
		s.Routes = true
	case "backoff-stops":
		s.Kills = true
	}
	if s.Tight {
		s.Topics, s.Oversized = s.Topics+2, false
	}
	if s.Blocks && s.Rude == "" && chance(r, 30) {
		s.Rude = "unmarshal-error"
	}
	if s.Oversized {
		s.PeerLimit = 2048
	}
	for range 1 + r.IntN(2) {
		s.Receivers = append(s.Receivers, newReceiverPlan(r, &s))
	}
	for range 1 + r.IntN(2) {
		s.Senders = append(s.Senders, newSenderPlan(r, &s))
	}
	return s
}

func newReceiverPlan(r *rand.Rand, s *Shape) receiverPlan {
	p := receiverPlan{
		Kind: pick(r, private, shared, shared, pubsub), Router: chance(r, 15), Dedupe: chance(r, 15),
		Declared: chance(r, 20),
	}
	if s.Rude == "dedupe-panics" {
		p.Dedupe = true
	}
	n := 1
	if p.Kind == shared {
		n = 1 + r.IntN(3)
	}
	for i := range n {
		sub := subscriberPlan{
			InFlight: pick(r, 1, 1, 2, 8), Attempts: pick(r, 0, 0, 0, 1, 3), DeadLetter: chance(r, 10), Emit: chance(r, 20),
			Ephemeral: chance(r, 8) || s.Swaps && chance(r, 40), NoHook: chance(r, 40), AckWait: pick(r, 0, 0, 0, 0, 200*time.Millisecond),
			CloseTimeout: pick(r, 100*time.Millisecond, time.Second, 3*time.Second),
		}
		if chance(r, 65) {
			sub.Group = fmt.Sprintf("g%d", r.IntN(2))
		}
		if i == 0 && s.Rude == "deadletter-panics" {
			sub.DeadLetter, sub.Attempts = true, 2
		}
		if s.Rude == "subfailure-panics" || s.Rude == "onfailure-panics" || s.Rude == "onfailure-publishes" {
			sub.DeadLetter, sub.Attempts = false, 2
		}
		if s.Rude == "key-panics" {
			sub.Key, sub.InFlight = true, 8
		}
		p.Subs = append(p.Subs, sub)
	}
	keyed := chance(r, 25) // all members of a group have the same
	for i := range p.Subs {
		p.Subs[i].Key = p.Subs[i].Key || keyed
	}
	return p
}

func newSenderPlan(r *rand.Rand, s *Shape) senderPlan {
	p := senderPlan{Shared: chance(r, 40), With: -1, Outbox: chance(r, 15) || s.Copies}
	if !s.Copies && chance(r, 15) {
		p.With, p.Shared, p.Outbox = r.IntN(len(s.Receivers)), true, false
	}
	for range 1 + r.IntN(2) {
		pub := publisherPlan{
			Confirm: pick(r, 0, 0, 1, 2), PublishTimeout: pick(r, time.Second, 3*time.Second, 30*time.Second),
			CloseTimeout: pick(r, 200*time.Millisecond, time.Second, 3*time.Second), Logical: s.Routes || chance(r, 20),
			Plain: chance(r, 3), Ephemeral: chance(r, 50),
		}
		if s.Rude == "resolve-panics" || s.Rude == "resolve-nothing" {
			pub.Logical = true
		}
		if p.Outbox {
			pub.Confirm, pub.Plain = 0, false
		}
		p.Pubs = append(p.Pubs, pub)
		if p.Outbox {
			break // one publisher delivers an outbox
		}
	}
	return p
}
