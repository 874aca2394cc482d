package session

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Amount is a number of messages and their encoded size in bytes, which is what credit and windows count.
type Amount = flow.Amount

// EncodedSize is the size in a Publish of a message of n bytes: its tag, its length and its bytes.
func EncodedSize(n int) int { return 1 + protowire.SizeBytes(n) }

// credit is how much an Outbound may send and how much it has sent: totals since Opened.
type credit struct {
	messages, bytes         uint64 // granted
	usedMessages, usedBytes uint64
}

func (c *credit) available() (messages, bytes uint64) {
	return c.messages - c.usedMessages, c.bytes - c.usedBytes
}

// dropUnused forgets the unused part, which a Want has returned to the receiver.
func (c *credit) dropUnused() { c.messages, c.bytes = c.usedMessages, c.usedBytes }
