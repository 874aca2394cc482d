package buffstreams

import (
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// StatsVersion is the version of the JSON form of what the Stats methods return. It grows when a field changes its
// meaning or goes; fields may be added without that.
const StatsVersion = 1

// statsKept is how long the Stats methods return the same result.
const statsKept = time.Second

// ManagerStats describes what a Manager has: everything of the publishers and subscribers that share it.
type ManagerStats struct {
	Version int       `json:"version"` // StatsVersion
	At      time.Time `json:"at"`      // when it was collected
	Closed  bool      `json:"closed,omitempty"`
	// NotReady says why Ready would not return nil: one line for each reason.
	NotReady  []string        `json:"not_ready,omitempty"`
	Addresses []AddressStats  `json:"addresses"` // that messages were published to, in the order of their names
	Listeners []ListenerStats `json:"listeners"` // in the order of their names
	// Memory is what the acked protocol has taken of AckedConfig.MemoryLimit, for sending and for receiving.
	Memory MemoryStats `json:"memory"`
}

// MemoryStats says what was taken of the budgets of a Manager, in bytes.
type MemoryStats struct {
	Limit     int `json:"limit"` // of each
	Sending   int `json:"sending"`
	Receiving int `json:"receiving"`
}

// AddressStats describes one address to which a Manager publishes. Of a plain peer it says State, "connecting", "ready"
// or "failed", the last error, Connects and Failures: what was written there is not known to be received.
type AddressStats struct {
	Address string `json:"address"` // host:port, tls://host:port or unix:///path
	Plain   bool   `json:"plain,omitempty"`
	// State is one of these. Where messages wait, another attempt to connect follows each that has failed.
	//
	//   - "idle": there is nothing to send, and no connection.
	//   - "connecting": it is dialed, or has not answered the greeting.
	//   - "ready": the peer takes messages.
	//   - "draining": the peer closes its listener, and takes no more.
	//   - "failed": the last attempt to connect has failed, or the connection was lost, and it is not known what became of the
	//     peer: see LastError.
	//   - "gone": there is no connection, and the last attempt was refused: nothing listens there.
	//   - "silent": the peer has something that is not settled, and nothing was heard of it for AckedConfig.MoveAfter. The
	//     connection may stand. From here, as from "gone", streams of a route move to another address.
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"` // of State
	// LastError is why the last connection was lost, or could not be made. It stays when another one is there.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	Connects    uint64    `json:"connects"` // connections that the peer has welcomed
	Failures    uint64    `json:"failures"` // connections that were lost, and attempts that failed
	Pending     int       `json:"pending"`  // messages that are not settled
	Unreceived  int       `json:"unreceived"`
	// OldestUnsettled is when the oldest message that is not settled was published; zero: there is none, or an Outbox
	// has it.
	OldestUnsettled time.Time     `json:"oldest_unsettled,omitzero"`
	Sent            uint64        `json:"sent"` // messages, those that were sent again included
	SentBytes       uint64        `json:"sent_bytes"`
	Settled         uint64        `json:"settled"`           // messages: handled, or refused for good
	Refused         uint64        `json:"refused"`           // messages of these that were refused
	Streams         []StreamStats `json:"streams,omitempty"` // those that are open, the oldest first
}

// StreamStats describes the messages of one topic to one address.
type StreamStats struct {
	Topic           string    `json:"topic"` // on the wire
	Outbox          bool      `json:"outbox,omitempty"`
	Pending         int       `json:"pending"`
	Unreceived      int       `json:"unreceived"` // messages that the peer is not known to have, or was asked to give back
	Bytes           int       `json:"bytes"`      // that are kept in memory
	OldestUnsettled time.Time `json:"oldest_unsettled,omitzero"`
	Waiting         int       `json:"waiting,omitempty"` // Publish calls that wait for room in the window
	// Groups is a digest of the names of the topic's consumer groups there, as the peer said when the stream was
	// opened: what serves one topic together should have the same. Empty: no group has a name, or the peer has not
	// said.
	Groups string `json:"groups,omitempty"`
}

// PublisherStats describes a Publisher.
type PublisherStats struct {
	Version   int            `json:"version"`
	At        time.Time      `json:"at"`
	NotReady  []string       `json:"not_ready,omitempty"`
	Addresses []AddressStats `json:"addresses"` // that this Publisher has used: what others send there through the same Manager is included
	// Topics are those that the Publisher remembers, in the order of their names.
	Topics []PublisherTopicStats `json:"topics"`
	// Outbox is what PublisherConfig.Outbox says of itself; nil: there is none, or it says nothing.
	Outbox *store.OutboxStats `json:"outbox,omitempty"`
	// Dropped is the number of messages that were dropped because PublisherConfig.Ephemeral is set.
	Dropped uint64 `json:"dropped"`
}

// PublisherTopicStats describes a topic of a Publisher.
type PublisherTopicStats struct {
	Topic     string   `json:"topic"`
	Addresses []string `json:"addresses"`      // where it leads now
	Pending   int      `json:"pending"`        // messages that are not settled, over all of these addresses; without those of an Outbox
	Calls     int      `json:"calls,omitzero"` // Publish calls that are under way
	// LookupError is why the Resolver gives no route; the topic keeps the last one, if it has had any: see Addresses.
	// Empty: the last lookup has found one.
	LookupError   string    `json:"lookup_error,omitempty"`
	LookupFailing time.Time `json:"lookup_failing_since,omitzero"`
	// GroupsDiffer tells that addresses which share the topic's messages have different consumer groups: some group
	// misses what the others get.
	GroupsDiffer bool `json:"groups_differ,omitempty"`
}

// SubscriberStats describes a Subscriber.
type SubscriberStats struct {
	Version       int                 `json:"version"`
	At            time.Time           `json:"at"`
	NotReady      []string            `json:"not_ready,omitempty"`
	Subscriptions []SubscriptionStats `json:"subscriptions"` // in the order of topics
	Listeners     []ListenerStats     `json:"listeners"`     // where it has subscriptions: what others have there is included
}

// SubscriptionStats describes one call of Subscribe.
type SubscriptionStats struct {
	Topic          string    `json:"topic"`
	Group          string    `json:"group,omitempty"`
	MaxInFlight    int       `json:"max_in_flight"`
	Offered        int       `json:"offered"`                   // messages in the channel, which no handler has taken
	Slow           int       `json:"slow"`                      // messages that are nacked, fail, or take longer than others
	OldestInFlight time.Time `json:"oldest_in_flight,omitzero"` // when the oldest message that it has was received
	Redelivered    uint64    `json:"redelivered"`               // deliveries that ended with a Nack or in no time, and were followed by another
	DeadLettered   uint64    `json:"dead_lettered"`             // messages that failed for good
}

// ListenerStats describes one address at which a Manager listens.
type ListenerStats struct {
	Address string `json:"address"` // in the form in which it was listened at
	Bound   string `json:"bound"`   // where the socket is, with the port
	Plain   bool   `json:"plain,omitempty"`
	// State is "open", "held" (a Ready channel is still open) or "draining".
	State      string       `json:"state"`
	Peers      []PeerStats  `json:"peers"`      // connections that were welcomed, in the order of their addresses
	Publishers int          `json:"publishers"` // that are remembered
	Received   uint64       `json:"received"`   // messages
	Duplicates uint64       `json:"duplicates"` // messages that were dropped, as they had been received before
	Rejected   uint64       `json:"rejected"`   // messages that were refused for good
	Topics     []TopicStats `json:"topics"`     // in the order of their names
}

// PeerStats describes a connection that a listener has accepted.
type PeerStats struct {
	Address   string    `json:"address"`
	Principal string    `json:"principal,omitempty"` // that Authenticate has returned
	Agent     string    `json:"agent,omitempty"`     // the software of the peer, as it says
	Since     time.Time `json:"since,omitzero"`
	Streams   int       `json:"streams"` // topics that it publishes to
}

// TopicStats describes a topic of a listener.
type TopicStats struct {
	Topic       string       `json:"topic"` // on the wire
	Ephemeral   bool         `json:"ephemeral,omitempty"`
	Streams     int          `json:"streams"`  // of publishers, also of those that are away
	Received    uint64       `json:"received"` // messages since the topic was made
	Held        int          `json:"held"`     // messages that the window has given out: those that are not settled, and credit
	HeldBytes   int          `json:"held_bytes"`
	Window      int          `json:"window"` // messages
	WindowBytes int          `json:"window_bytes"`
	Missing     []string     `json:"missing,omitempty"`  // declared groups that have not subscribed yet
	Shortage    string       `json:"shortage,omitempty"` // why publishers get no room; empty: none waits for it
	Groups      []GroupStats `json:"groups"`
}

// GroupStats describes a consumer group of a topic, or a subscription without one.
type GroupStats struct {
	Group           string     `json:"group"`                     // empty for a subscription without a group
	Members         int        `json:"members"`                   // subscriptions
	Settled         uint64     `json:"settled"`                   // messages since the group was made
	Lag             int        `json:"lag"`                       // messages that it has not settled
	InFlight        int        `json:"in_flight"`                 // of these, those that its members have
	OldestUnsettled time.Time  `json:"oldest_unsettled,omitzero"` // when the oldest of them was received
	WaitForKey      int        `json:"wait_for_key,omitempty"`    // messages that wait for another one with their key
	StuckKeys       []KeyStats `json:"stuck_keys,omitempty"`      // those for which most messages wait, ten at most
}

// KeyStats describes a key for which messages wait, as one with the same key is not settled.
type KeyStats struct {
	Key     string    `json:"key"` // cut and without control characters
	Waiting int       `json:"waiting"`
	Oldest  time.Time `json:"oldest,omitzero"` // when the first of those that wait was received
}

// statsCache keeps a result for statsKept, so that many who ask cost what one does.
type statsCache[T any] struct {
	mu     sync.Mutex // guards the fields below; held while the result is collected
	at     time.Time
	result T
}

// get returns the result that is kept, or collects one. The caller must not change it.
func (c *statsCache[T]) get(collect func(now time.Time) T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.at.IsZero() || now.Sub(c.at) >= statsKept {
		c.result, c.at = collect(now), now
	}
	return c.result
}
