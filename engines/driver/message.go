package driver

import (
	"context"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
)

// idContext is a context with an ID: each message that a bridge carries has one.
type idContext struct {
	context.Context
	id string
}

type idKey struct{}

func (c *idContext) Value(key any) any {
	if key == (idKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// WithID returns a context for messages that are to be stored once under an ID.
func WithID(ctx context.Context, id string) context.Context { return &idContext{ctx, id} }

// ID returns the ID that a message is to be stored under, or has in the engine that it comes from; empty if it has
// none.
func ID(msg *message.Message) string {
	if c, _ := msg.Context().Value(idKey{}).(*idContext); c != nil {
		return c.id
	}
	return ""
}

// UUIDHeader and IDHeader are the headers of a message's UUID and ID, in engines that have headers.
const (
	UUIDHeader = "_watermill_message_uuid"
	IDHeader   = "_buffstreams_id"
)

// Size is the size of a message's payload, metadata and UUID.
func Size(msg *message.Message) int {
	size := len(msg.Payload) + len(msg.UUID)
	for k, v := range msg.Metadata {
		size += len(k) + len(v)
	}
	return size
}

// escaped begins the names that Escape had to change.
const escaped = "x_"

// Escape returns a name of an engine for a topic or group, of bytes that the engine allows: the name itself where that
// is possible, or one that no other name gets. The engine must allow letters, digits and the underscore.
func Escape(name string, legal func(byte) bool) string {
	plain := name != "" && !strings.HasPrefix(name, escaped)
	for i := 0; plain && i < len(name); i++ {
		plain = legal(name[i])
	}
	if plain {
		return name
	}
	var b strings.Builder
	b.WriteString(escaped)
	for i := range len(name) {
		if c := name[i]; c != '_' && legal(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// Word reports whether a byte is a letter, a digit, a hyphen or an underscore: what every engine allows.
func Word(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
