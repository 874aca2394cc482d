package session

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Amount is a number of messages and their size in bytes, as credit and windows count it.
type Amount = flow.Amount

// EncodedSize is the size that a message of n bytes has in a Publish, which is the size that credit counts.
func EncodedSize(n int) int { return 1 + protowire.SizeBytes(n) }
