package outbox

import (
	"context"
	"encoding/binary"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// groupLimit is what a group gathers at most, unless one append alone is larger.
const groupLimit = 4 << 20

// group is what one fsync makes durable: the appends that gathered while the
// one before was under way. Until the committer takes it, mu guards it.
type group struct {
	entry    []byte // header space, then records
	sections []section
	appends  int
	defined  []*stream
	done     chan struct{} // closed once err is final
	err      error
}

// section is messages of one stream that follow each other in the entry of
// their group.
type section struct {
	stream       *stream
	first, count uint64
	start, end   int    // payload in entry
	payload      []byte // set when it is durable
}

func (s *section) last() uint64 { return s.first + s.count - 1 }

// Append stores messages at the end of stream k, all of them or none, and
// returns the sequence of the first after their fsync; the others follow it
// without a gap. Concurrent calls share one fsync. The messages may be reused
// once Append returns, whatever it returns. Without messages it does nothing.
//
// It fails with ErrOutboxFull or a *SizeError before anything is written, with
// an *UnconfirmedError if ctx ends while the fsync is under way, with ErrClosed,
// and with ErrFailed.
func (o *Outbox) Append(ctx context.Context, k store.Key, messages ...[]byte) (first uint64, err error) {
	if len(messages) == 0 {
		return 0, nil
	}
	size := payloadSize(messages)
	if err := checkSizes(k, size); err != nil {
		return 0, err
	}
	g, first, err := o.enqueue(ctx, k, messages, size)
	if err != nil {
		return 0, err
	}
	select {
	case <-g.done:
		if g.err != nil {
			return 0, g.err
		}
		return first, nil
	case <-ctx.Done():
		return first, &store.UnconfirmedError{First: first, Count: len(messages), Err: ctx.Err()}
	}
}

func checkSizes(k store.Key, size int) error {
	switch {
	case size > MaxAppendBytes:
		return &store.SizeError{What: "messages", Size: size, Limit: MaxAppendBytes}
	case len(k.Destination) > MaxKeyBytes:
		return &store.SizeError{What: "destination", Size: len(k.Destination), Limit: MaxKeyBytes}
	case len(k.Topic) > MaxKeyBytes:
		return &store.SizeError{What: "topic", Size: len(k.Topic), Limit: MaxKeyBytes}
	}
	return nil
}

// enqueue gives the messages their sequences and copies them into the group
// that is gathering. While that is full it waits for the next one.
func (o *Outbox) enqueue(ctx context.Context, k store.Key, messages [][]byte, size int) (*group, uint64, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		o.mu.Lock()
		g, err := o.gathering()
		if err == nil && len(g.entry)+size <= max(groupLimit, size+entryHeader) {
			first, err := o.add(g, k, messages, size)
			o.mu.Unlock()
			if err == nil {
				o.poke()
			}
			return g, first, err
		}
		o.mu.Unlock()
		if err != nil {
			return nil, 0, err
		}
		select {
		case <-g.done:
		case <-ctx.Done():
		}
	}
}

// gathering returns the group to add to. mu is held.
func (o *Outbox) gathering() (*group, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	if o.group == nil {
		o.group = &group{
			entry:    make([]byte, entryHeader, entryHeader+max(o.groupHint, 512)),
			sections: make([]section, 0, o.sectionHint),
			done:     make(chan struct{}),
		}
	}
	return o.group, nil
}

// add reserves quota and sequences. mu is held.
func (o *Outbox) add(g *group, k store.Key, messages [][]byte, size int) (first uint64, err error) {
	wanted, pending := cost(size, len(messages)), int64(0)
	if d := o.dests[k.Destination]; d != nil {
		pending = d.bytes
	}
	if pending+wanted > o.cfg.QuotaBytes {
		return 0, &store.FullError{Destination: k.Destination, Pending: pending, Wanted: wanted, Quota: o.cfg.QuotaBytes}
	}
	s := o.streams[k]
	if s == nil {
		s = o.addStream(o.nextStream, k)
		g.defined = append(g.defined, s)
		g.entry = appendStreamRecord(g.entry, s.id, k)
	}
	s.addBytes(wanted)
	first = s.next
	s.next += uint64(len(messages))

	g.appends++
	g.add(s, first, messages, size)
	return first, nil
}

// add encodes messages. What follows messages of the same stream without a
// record between becomes part of their section.
func (g *group) add(s *stream, first uint64, messages [][]byte, size int) {
	var sec *section
	if n := len(g.sections); n > 0 && g.sections[n-1].stream == s && g.sections[n-1].end == len(g.entry) {
		sec = &g.sections[n-1]
	} else {
		g.entry = appendMessagesHeader(g.entry, s.id, origin{}, first, len(messages), size)
		g.sections = append(g.sections, section{stream: s, first: first, start: len(g.entry)})
		sec = &g.sections[n]
	}
	for _, m := range messages {
		g.entry = binary.AppendUvarint(g.entry, uint64(len(m)))
		g.entry = append(g.entry, m...)
	}
	sec.count += uint64(len(messages))
	sec.end = len(g.entry)
	patchMessagesHeader(g.entry, sec.start, int(sec.count), sec.end-sec.start)
}
