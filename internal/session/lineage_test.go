package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// ownLineage is that of an outbox whose epochs 1, 2 and 5 older code has opened, and whose present one is 6.
func ownLineage() []Incarnation {
	return []Incarnation{incarnation(3, [16]byte{3}), incarnation(4, [16]byte{4}), incarnation(6, [16]byte{6})}
}

func incarnation(epoch uint64, id [16]byte) Incarnation { return Incarnation{Epoch: epoch, ID: id} }

func TestIdentity_OwnsItsIncarnations(t *testing.T) {
	id := Identity{Epoch: 6, Lineage: ownLineage()}
	for name, c := range map[string]struct {
		last Incarnation
		own  bool
	}{
		"present":                         {incarnation(6, [16]byte{6}), true},
		"earlier":                         {incarnation(3, [16]byte{3}), true},
		"a store that knows no epoch":     {incarnation(1, [16]byte{4}), true},
		"older code, before":              {incarnation(2, [16]byte{}), true},
		"older code, in between":          {incarnation(5, [16]byte{}), true},
		"older code, of a copy":           {incarnation(4, [16]byte{}), false},
		"older code, of a copy, now":      {incarnation(6, [16]byte{}), false},
		"older code, of one that is more": {incarnation(7, [16]byte{}), false},
		"a copy":                          {incarnation(6, [16]byte{66}), false},
		"a copy of long ago":              {incarnation(2, [16]byte{22}), false},
		"one that went on":                {incarnation(9, [16]byte{9}), false},
	} {
		require.Equal(t, c.own, id.owns(c.last), name)
	}
}

// The receiver has last heard of a stream from a stranger: what it says of the stream is not believed, in whatever way it
// says it, and no other stream notices.
func TestClient_RefusesAStreamOfAStranger(t *testing.T) {
	for name, c := range map[string]struct {
		answer *wire.Opened
		want   error // nil: the stream is open
	}{
		"a stranger":                       {&wire.Opened{Next: 1, LastEpoch: 6, LastIncarnation: make16(66)}, ErrCopied},
		"a stranger who is ahead":          {&wire.Opened{Next: 3, Settled: []uint64{1, 2}, LastEpoch: 6, LastIncarnation: make16(66)}, ErrCopied},
		"a stranger fences":                {&wire.Opened{Code: wire.Code_CODE_FENCED, LastEpoch: 9, LastIncarnation: make16(9)}, ErrCopied},
		"fenced by an epoch":               {&wire.Opened{Code: wire.Code_CODE_FENCED, LastEpoch: 9}, ErrCopied},
		"fenced without a reason":          {&wire.Opened{Code: wire.Code_CODE_FENCED}, ErrFenced},
		"refused for another reason":       {&wire.Opened{Code: wire.Code_CODE_FORBIDDEN, LastEpoch: 6, LastIncarnation: make16(66)}, ErrForbidden},
		"own":                              {&wire.Opened{Next: 1, LastEpoch: 4, LastIncarnation: make16(4)}, nil},
		"a receiver without a memory":      {&wire.Opened{Next: 1}, nil},
		"an incarnation of a strange size": {&wire.Opened{Next: 1, LastEpoch: 2, LastIncarnation: []byte{1}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			id := Identity{Publisher: [16]byte{9}, Epoch: 6, Lineage: ownLineage()}
			o := p.client.StartFetched(id, 7, "a", 1, 4)
			p.client.Announce(o, 4)
			p.enqueue("b", 1)
			p.reopen()
			c.answer.Handle = o.handle
			require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: c.answer}}))
			if c.want == nil {
				require.NoError(t, o.Err())
				require.Equal(t, open, o.state)
			} else {
				require.ErrorIs(t, o.Err(), c.want)
				var refused *PeerError
				require.ErrorAs(t, o.Err(), &refused)
				require.Equal(t, []Event{{Err: refused}}, o.Events(), "nothing is settled")
			}
			require.NoError(t, p.client.Stream("b").Err())
		})
	}
}

func make16(b byte) []byte { return append([]byte{b}, make([]byte, 15)...) }

// A sender without durable state has no lineage to look into.
func TestClient_InMemoryStreamHasNoLineage(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.enqueue("a", 1)
	p.reopen()
	o := p.client.Stream("a")
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{
		Handle: o.handle, Next: 1, LastEpoch: 1, LastIncarnation: make16(1),
	}}}))
	require.NoError(t, o.Err())
}

// A receiver has last heard of an earlier incarnation, whose directory was copied before it went on: it has more than
// that incarnation had stored when the next one began here.
func TestClient_RefusesWhatAnEarlierIncarnationHadNot(t *testing.T) {
	openings := []store.Opening{{Epoch: 4, Next: 3}, {Epoch: 6, Next: 6}}
	for name, c := range map[string]struct {
		openings []store.Opening
		last     byte
		next     uint64
		settled  []uint64
		refused  bool
	}{
		"all that it had":                     {openings, 3, 3, nil, false},
		"one more":                            {openings, 3, 4, nil, true},
		"one more is settled":                 {openings, 3, 3, []uint64{4, 4}, true},
		"the next one had it":                 {openings, 4, 6, nil, false},
		"more than the next one had":          {openings, 4, 7, nil, true},
		"the present one may have sent all":   {openings, 6, 9, nil, false},
		"it has found no stream":              {openings[1:], 3, 2, nil, true},
		"a stream that is new":                {[]store.Opening{}, 4, 2, nil, true},
		"a stream that is new, and is empty":  {[]store.Opening{}, 4, 1, nil, false},
		"a store that does not know":          {nil, 3, 9, nil, false},
		"a receiver that does not know":       {openings, 0, 9, nil, false},
		"all earlier ones, of which the most": {[]store.Opening{{Epoch: 0, Next: 8}}, 3, 8, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			o := p.client.StartFetched(Identity{Publisher: [16]byte{9}, Epoch: 6, Lineage: ownLineage()}, 7, "a", 1, 9)
			o.KnowOpenings(c.openings)
			p.client.Announce(o, 9)
			p.reopen()
			answer := &wire.Opened{Handle: o.handle, Next: c.next, Settled: c.settled}
			if c.last > 0 {
				answer.LastEpoch, answer.LastIncarnation = uint64(c.last), make16(c.last)
			}
			require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: answer}}))
			if c.refused {
				require.ErrorIs(t, o.Err(), ErrNeverSent)
			} else {
				require.NoError(t, o.Err())
			}
		})
	}
}
