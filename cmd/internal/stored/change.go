package stored

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// tally counts what a command does.
type tally struct{ messages, sent uint64 }

// counts are the messages of a selection, and how many of them may have been sent already.
func counts(box *outbox.Outbox, s Selection) (t tally, err error) {
	for _, one := range s.streams(box) {
		first, last := s.bounds(one)
		err = errors.Join(err, walk(box, one.Key, first, last, func(first uint64, messages [][]byte) error {
			t.messages += uint64(len(messages))
			for i := range messages {
				if first+uint64(i) < one.Sent {
					t.sent++
				}
			}
			return nil
		}, damaged))
	}
	return t, err
}

func (t tally) String() string {
	if t.sent == 0 {
		return fmt.Sprintf("messages: %d", t.messages)
	}
	return fmt.Sprintf("messages: %d, of which %d may have been sent already", t.messages, t.sent)
}

// ErrNotForced means that nothing was changed, as that was not asked for.
var ErrNotForced = errors.New("nothing was changed; --force does it")

// Move puts messages behind those for another destination, in order, and drops them where they were once they are on
// disk there: a crash in between leaves them in both. It says how many on out.
func Move(ctx context.Context, dir string, s Selection, to string, force bool, out io.Writer) error {
	target, err := pipe.ParseTopic(to)
	if err != nil {
		return err
	}
	if target.Name != "" {
		return fmt.Errorf("--to %.200q has a topic's name; messages keep their topics: leave %q out", to, target.Name)
	}
	if target.Peer() == s.Destination {
		return errors.New("--to and --destination are the same")
	}
	c := change{would: "move to " + target.Peer(), did: "moved to " + target.Peer()}
	return c.do(dir, s, force, out, func(box *outbox.Outbox, one store.Stream) error {
		first, last := s.bounds(one)
		key := store.Key{Destination: target.Peer(), Topic: one.Key.Topic}
		return walk(box, one.Key, first, last, func(first uint64, messages [][]byte) error {
			if _, err := box.Append(ctx, key, messages...); err != nil {
				return err
			}
			return box.Settle(one.Key, 0, store.Range{First: first, Last: first + uint64(len(messages)) - 1})
		}, damaged)
	})
}

// Remove drops messages. It says how many on out.
func Remove(dir string, s Selection, force bool, out io.Writer) error {
	c := change{would: "drop", did: "dropped"}
	return c.do(dir, s, force, out, func(box *outbox.Outbox, one store.Stream) error {
		first, last := s.bounds(one)
		if first > last {
			return nil
		}
		return box.Settle(one.Key, 0, store.Range{First: first, Last: last})
	})
}

// change is what a command does to a selection, in the words of its output.
type change struct{ would, did string }

// do changes every stream of a selection if it is forced, and says what was or would be changed.
func (c change) do(dir string, s Selection, force bool, out io.Writer, one func(*outbox.Outbox, store.Stream) error) (err error) {
	box, err := pipe.OpenOutbox(dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	t, err := counts(box, s)
	if err != nil {
		return err
	}
	if !force {
		_, err := fmt.Fprintf(out, "would %s %v\n", c.would, t)
		return errors.Join(err, ErrNotForced)
	}
	for _, stream := range s.streams(box) {
		if err := one(box, stream); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%s %v\n", c.did, t)
	return err
}

// Repair reads everything, and names what cannot be read; with force it drops that, so that what is behind it is
// delivered.
func Repair(dir string, force bool, out io.Writer) (err error) {
	box, err := pipe.OpenOutbox(dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	sound, lost := uint64(0), uint64(0)
	for _, one := range (Selection{}).streams(box) {
		first, last := Selection{}.bounds(one)
		err := walk(box, one.Key, first, last, func(_ uint64, messages [][]byte) error {
			sound += uint64(len(messages))
			return nil
		}, func(damage *store.CorruptError) error {
			lost += damage.Through - damage.From + 1
			_, err := fmt.Fprintf(out, "unreadable: sequences %d to %d of %s: %s\n", damage.From, damage.Through, name(one.Key), damage.Reason)
			if err == nil && force {
				err = box.Settle(one.Key, 0, store.Range{First: damage.From, Last: damage.Through})
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	switch {
	case lost == 0:
		_, err = fmt.Fprintf(out, "sound: all %d messages can be read\n", sound)
	case force:
		_, err = fmt.Fprintf(out, "dropped %d sequences that cannot be read; %d messages are left\n", lost, sound)
	default:
		_, err = fmt.Fprintf(out, "would drop %d sequences that cannot be read; %d messages can be read\n", lost, sound)
		err = errors.Join(err, ErrNotForced)
	}
	return err
}
