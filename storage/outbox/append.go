package outbox

import (
	"context"
	"encoding/binary"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// groupLimit bounds the bytes of a group, unless one append alone is larger.
const groupLimit = 4 << 20

// group is what one fsync makes durable: the appends that arrived during the fsync before. Outbox.mu guards it until
// the committer takes it; from then on the committer owns it.
type group struct {
	entry    []byte // space for the header, then records
	sections []section
	appends  int
	defined  []*stream     // new streams
	done     chan struct{} // closed once err is final
	err      error
}

// section is a run of one stream's messages in the entry of their group.
type section struct {
	stream       *stream
	first, count uint64
	start, end   int    // payload in entry
	payload      []byte // set when it is durable
}

func (s *section) last() uint64 { return s.first + s.count - 1 }

// Append stores messages at the end of stream k, all of them or none, and creates the stream if there is none. It
// returns the sequence of the first message after their fsync, which concurrent calls share; the others follow without
// a gap. The caller may reuse the messages when Append has returned, even with an error. Without messages Append does
// nothing.
//
// Nothing was stored if the error is a *store.FullError, a *store.SizeError, store.ErrClosed, or the context's own,
// which is returned if ctx ends before the messages have their sequences. If ctx ends later, during the fsync, the
// error is a *store.UnconfirmedError. After a failed write it wraps store.ErrFailed, and it is not known what was
// stored.
func (o *Outbox) Append(ctx context.Context, k store.Key, messages ...[]byte) (first uint64, err error) {
	if len(messages) == 0 {
		return 0, nil
	}
	size, began := payloadSize(messages), clock(o.watchers.appended)
	first, err = o.append(ctx, k, messages, size)
	o.watchers.tellAppended(hooks.OutboxAppended{
		Outbox: o.cfg.Dir, Destination: k.Destination, Topic: k.Topic, Messages: len(messages), Bytes: size,
		Took: since(began), Err: err,
	})
	return first, err
}

// append is Append for at least one message.
func (o *Outbox) append(ctx context.Context, k store.Key, messages [][]byte, size int) (first uint64, err error) {
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

// enqueue gives the messages their sequences and copies them into the group that gathers appends. While that is full it
// waits for the next one.
func (o *Outbox) enqueue(ctx context.Context, k store.Key, messages [][]byte, size int) (*group, uint64, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		g, first, full, err := o.tryEnqueue(k, messages, size)
		if err != nil {
			return nil, 0, err
		}
		if !full {
			o.poke()
			return g, first, nil
		}
		select {
		case <-g.done:
		case <-ctx.Done():
		}
	}
}

func (o *Outbox) tryEnqueue(k store.Key, messages [][]byte, size int) (g *group, first uint64, full bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	g, err = o.groupLocked()
	if err != nil || len(g.entry)+size > max(groupLimit, size+entryHeader) {
		return g, 0, true, err
	}
	s, err := o.reserveLocked(g, k, len(messages), size)
	if err != nil {
		return nil, 0, false, err
	}
	first = s.next
	s.next += uint64(len(messages))
	g.add(s, first, messages, size)
	return g, first, false, nil
}

// groupLocked returns the group that gathers appends.
func (o *Outbox) groupLocked() (*group, error) {
	if err := o.errLocked(); err != nil {
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

// reserveLocked charges count messages to the quota of their destination, and returns their stream, which it creates in
// g if there is none.
func (o *Outbox) reserveLocked(g *group, k store.Key, count, size int) (*stream, error) {
	wanted, pending := cost(size, count), int64(0)
	d := o.index.destinations[k.Account()]
	if d != nil {
		pending = d.bytes
	}
	if pending+wanted > o.cfg.QuotaBytes {
		if d != nil && wanted <= o.cfg.QuotaBytes {
			d.refused = wanted
		}
		return nil, &store.FullError{Destination: k.Account(), Pending: pending, Wanted: wanted, Quota: o.cfg.QuotaBytes}
	}
	if d != nil {
		d.refused = 0
	}
	s := o.index.streams[k]
	if s == nil {
		s = o.index.addStream(o.index.nextStream, k)
		g.defined = append(g.defined, s)
		g.entry = appendStreamRecord(g.entry, s.id, k)
	}
	s.addBytes(wanted)
	return s, nil
}

// add encodes messages. They extend the last section if that is of the same stream and no other record follows it.
func (g *group) add(s *stream, first uint64, messages [][]byte, size int) {
	g.appends++
	n := len(g.sections)
	if n == 0 || g.sections[n-1].stream != s || g.sections[n-1].end != len(g.entry) {
		g.entry = appendMessagesHeader(g.entry, extentKey{stream: s.id}, first, len(messages), size)
		g.sections = append(g.sections, section{stream: s, first: first, start: len(g.entry)})
		n++
	}
	sec := &g.sections[n-1]
	for _, m := range messages {
		g.entry = binary.AppendUvarint(g.entry, uint64(len(m)))
		g.entry = append(g.entry, m...)
	}
	sec.count += uint64(len(messages))
	sec.end = len(g.entry)
	patchMessagesHeader(g.entry, sec.start, int(sec.count), sec.end-sec.start)
}
