package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

var bills = store.Key{Destination: "10.0.0.1:5031", Topic: "bills"}

func openingsOf(o *Outbox) (all [][]store.Opening) {
	for _, s := range o.Streams() {
		all = append(all, s.Openings)
	}
	return all
}

// Each open notes where the streams stand, unless that has not changed.
func TestOpenings_SayWhereEachStreamStood(t *testing.T) {
	cfg := newMemDisk(1).config()
	o := open(t, cfg)
	fill(t, o, orders, 1, 3, 10)
	require.Equal(t, [][]store.Opening{{}}, openingsOf(o), "no earlier opening knew it, and that is known")
	o = reopen(t, o, cfg)
	fill(t, o, orders, 4, 5, 10)
	fill(t, o, bills, 1, 2, 10)
	require.Equal(t, [][]store.Opening{{{Epoch: 2, Next: 4}}, {}}, openingsOf(o), "what came since is not in it")
	o = reopen(t, o, cfg)
	o = reopen(t, o, cfg)
	o = reopen(t, o, cfg)
	require.Equal(t, [][]store.Opening{{{Epoch: 2, Next: 4}, {Epoch: 3, Next: 6}}, {{Epoch: 3, Next: 3}}}, openingsOf(o))

	require.NoError(t, o.Settle(bills, 2))
	require.NoError(t, o.Forget(t.Context(), bills))
	o = reopen(t, o, cfg)
	require.Equal(t, [][]store.Opening{{{Epoch: 2, Next: 4}, {Epoch: 3, Next: 6}}}, openingsOf(o))
	for n := uint64(6); n < 6+2*maxOpenings; n++ {
		fill(t, o, orders, n, n, 10)
		o = reopen(t, o, cfg)
	}
	all := openingsOf(o)[0]
	require.Len(t, all, maxOpenings)
	require.Equal(t, store.Opening{Epoch: 2, Next: 7 + maxOpenings}, all[0], "of the oldest only the most is known")
	require.Equal(t, store.Opening{Epoch: o.Epoch(), Next: 6 + 2*maxOpenings}, all[maxOpenings-1])
	require.NoError(t, o.Close())
}

// What older code has stored is in no opening: all that is known is that it was stored by now.
func TestOpenings_OlderCode(t *testing.T) {
	disk := newMemDisk(1)
	o := open(t, disk.config())
	fill(t, o, orders, 1, 3, 10)
	o = reopen(t, o, disk.config())
	noted := append([]byte(nil), disk.meta.stable[keyOpenings]...)
	fill(t, o, orders, 4, 5, 10)
	o = reopen(t, o, disk.config())
	fill(t, o, orders, 6, 6, 10)
	require.NoError(t, o.Close())

	disk.meta.stable[keyOpenings] = noted // as if older code had stored 4 and 5
	o = open(t, disk.config())
	require.Equal(t, [][]store.Opening{{{Next: 7}}}, openingsOf(o))
	require.NoError(t, o.Close())
	delete(disk.meta.stable, keyOpenings)
	o = open(t, disk.config())
	require.Equal(t, [][]store.Opening{{{Next: 7}}}, openingsOf(o))
	require.NoError(t, o.Close())

	for _, damaged := range [][]byte{{}, {99}, {stateVersion}, {stateVersion, 3, 1, 2, 1}} {
		disk.meta.stable[keyOpenings] = damaged
		_, err := Open(disk.config())
		var corrupt *store.CorruptError
		require.ErrorAs(t, err, &corrupt)
	}
}
