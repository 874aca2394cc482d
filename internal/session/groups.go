package session

import "maps"

// groupsSeen is what the receiver has said of the consumer groups of topics, when a stream was opened last.
type groupsSeen map[string]uint64

// leastGroupsKept is how many topics groupsSeen remembers in any case.
const leastGroupsKept = 64

// noteGroups remembers the digest of a topic's groups. It forgets those of topics without a stream when they are many.
func (c *Client) noteGroups(topic string, digest uint64) {
	if c.groups == nil {
		c.groups = groupsSeen{}
	}
	c.groups[topic] = digest
	if len(c.groups) <= leastGroupsKept+2*len(c.handles) {
		return
	}
	used := map[string]bool{topic: true}
	for _, o := range c.handles {
		used[o.Topic] = true
	}
	maps.DeleteFunc(c.groups, func(topic string, _ uint64) bool { return !used[topic] })
}

// Groups is the digest of a topic's consumer groups, as the receiver said when a stream of the topic was opened last;
// 0: they have no names. ok is false if it has not said so, or that was forgotten.
func (c *Client) Groups(topic string) (digest uint64, ok bool) {
	digest, ok = c.groups[topic]
	return digest, ok
}
