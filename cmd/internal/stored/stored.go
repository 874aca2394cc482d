// Package stored looks into outboxes and dedupe files, and changes them for an operator: what the commands outbox and
// dedupe do.
package stored

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Selection chooses messages of an outbox. The zero value chooses all.
type Selection struct {
	Destination string
	// Topic chooses if HasTopic is set: a topic's name can be empty.
	Topic    string
	HasTopic bool
	// First and Last are sequences, both ends included; Last 0 means no end.
	First, Last uint64
}

// ParseSequences reads N, FIRST-LAST or FIRST-.
func (s *Selection) ParseSequences(text string) error {
	if text == "" {
		return nil
	}
	first, last, isRange := strings.Cut(text, "-")
	bad := fmt.Errorf("--sequence %.50q is not N, FIRST-LAST or FIRST-", text)
	var err error
	if s.First, err = strconv.ParseUint(first, 10, 64); err != nil || s.First == 0 {
		return bad
	}
	switch {
	case !isRange:
		s.Last = s.First
	case last == "":
		s.Last = math.MaxUint64
	default:
		if s.Last, err = strconv.ParseUint(last, 10, 64); err != nil || s.Last < s.First {
			return bad
		}
	}
	return nil
}

// streams returns the streams of a selection that have messages.
func (s Selection) streams(box *outbox.Outbox) (chosen []store.Stream) {
	for _, one := range box.Streams() {
		if one.Pending > 0 && (s.Destination == "" || s.Destination == one.Key.Destination) && (!s.HasTopic || s.Topic == one.Key.Topic) {
			chosen = append(chosen, one)
		}
	}
	return chosen
}

// bounds are the sequences of a stream that a selection has, both ends included.
func (s Selection) bounds(one store.Stream) (first, last uint64) {
	first, last = max(s.First, one.First), one.Next-1
	if s.Last > 0 {
		last = min(last, s.Last)
	}
	return first, last
}

// readBytes is how much is read from an outbox at a time.
const readBytes = 1 << 20

// errEnough ends a walk.
var errEnough = errors.New("enough")

// walk calls f for runs of messages of a stream in order, and lost for ranges that cannot be read.
func walk(box *outbox.Outbox, k store.Key, first, last uint64, f func(first uint64, messages [][]byte) error, lost func(*store.CorruptError) error) error {
	for first <= last {
		batch, err := box.Read(k, first, readBytes)
		var damage *store.CorruptError
		switch {
		case errors.As(err, &damage) && damage.From > 0 && damage.Through >= first:
			if damage.From > last {
				return nil
			}
			if err := lost(damage); err != nil {
				return err
			}
			first = damage.Through + 1
			continue
		case err != nil:
			return err
		case len(batch.Messages) == 0 || batch.First > last:
			return nil
		}
		messages := batch.Messages
		if n := last - batch.First + 1; uint64(len(messages)) > n {
			messages = messages[:n]
		}
		if err := f(batch.First, messages); err != nil {
			return err
		}
		first = batch.Next()
	}
	return nil
}

// name is a stream as people see it.
func name(k store.Key) string {
	return fmt.Sprintf("topic %s for %s", pipe.Printable(k.Topic), pipe.Printable(k.Destination))
}

// damaged is the error of a walk that needs what cannot be read.
func damaged(e *store.CorruptError) error {
	return fmt.Errorf("sequences %d to %d of %s cannot be read; 'buffstreams outbox repair' drops them: %w", e.From, e.Through, name(e.Key), e)
}
