package session

import (
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// ephemeralMark begins the name of an ephemeral stream, and no topic's name, as those are valid UTF-8.
const ephemeralMark = "\xff"

// Ephemeral returns the name of the stream for messages to a topic that are of no use when the topic, or its peer, is
// gone. Stream and Find take it in place of a topic; other messages to the topic have a stream of their own.
func Ephemeral(topic string) string { return ephemeralMark + topic }

func isEphemeral(name string) bool { return strings.HasPrefix(name, ephemeralMark) }

// absentAfter is how long the messages of an ephemeral stream wait for their topic.
const absentAfter = time.Second

// absent tells whether the stream has messages, and neither a connection nor a topic to send them to.
func (o *Outbound) absent() bool {
	return o.pending > 0 && (o.state != open || o.credit.messages == 0)
}

// tickAbsent refuses the messages of an ephemeral stream that has been absent for absentAfter, as Tick has seen it.
func (c *Client) tickAbsent(o *Outbound, now time.Time) {
	switch {
	case !o.absent():
		o.absentSince = time.Time{}
	case o.absentSince.IsZero():
		o.absentSince = now
	case now.Sub(o.absentSince) >= absentAfter:
		if c.phase >= established && o.state != unopened {
			c.sendControl(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: o.handle}}})
		}
		c.failStream(o, NewPeerError(wire.Code_CODE_TOPIC_GONE, "the peer, or a subscription there, was absent for "+absentAfter.String()))
	}
}

// TopicOf is the topic of the stream with a name.
func TopicOf(name string) string { return strings.TrimPrefix(name, ephemeralMark) }
