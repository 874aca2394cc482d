package store

import (
	"context"
	"strconv"
	"strings"
)

// topicPrefix begins the Destination of a Key that names no address. No address has it.
const topicPrefix = "topic:"

// TopicKey returns the key of messages that belong to a topic and not to an address: where they go is chosen when they
// are sent. name is the topic's on the wire. Messages of one slot are in order; a slot below 0 stands for all of a
// topic whose route has no slots. group counts the groups of addresses of a route to which each message goes, from 0.
func TopicKey(topic, name string, group, slot int) Key {
	destination := topicPrefix + topic + "#" + strconv.Itoa(group)
	if slot >= 0 {
		destination += "/" + strconv.Itoa(slot)
	}
	return Key{Destination: destination, Topic: name}
}

// ByTopic returns what TopicKey made a key of. ok is false for the key of an address.
func (k Key) ByTopic() (topic string, group, slot int, ok bool) {
	rest, ok := strings.CutPrefix(k.Destination, topicPrefix)
	at := strings.LastIndexByte(rest, '#')
	if !ok || at < 0 {
		return "", 0, 0, false
	}
	first, second, slotted := strings.Cut(rest[at+1:], "/")
	group, err := strconv.Atoi(first)
	if slot = -1; err == nil && slotted {
		slot, err = strconv.Atoi(second)
	}
	return rest[:at], group, slot, err == nil
}

// Account is what the quota of an outbox counts the messages of a key under: their address, or their topic.
func (k Key) Account() string {
	if topic, _, _, ok := k.ByTopic(); ok {
		return topicPrefix + topic
	}
	return k.Destination
}

// Place is where the messages of a topic's stream go, until they go elsewhere.
type Place struct {
	Address string // host:port, tls://host:port or unix:///path; empty: nowhere yet
	Tenure  uint64 // counts the places that the stream has had, from 1
}

// Placer is an [Outbox] that remembers where the streams of topics are. In an Outbox that is none, messages belong to
// the address that was chosen when they were published.
type Placer interface {
	// Place returns where stream k is; zero: nowhere yet, or there is no stream k.
	Place(k Key) Place

	// SetPlace notes where stream k is, and returns once that is durable. It returns [ErrUnknownStream] if there is no
	// stream k, and the context's error if ctx ends first: then it is not known whether the place is noted.
	SetPlace(ctx context.Context, k Key, p Place) error
}
