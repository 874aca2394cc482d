//go:build linux

package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// ledger is an application's database. A handler's effect and the position of its message go into it in one transaction,
// and as a DedupeStore it reads that position back. It is for one message in flight per subscription: then everything up
// to the position is settled.
type ledger struct{ db *bolt.DB }

var _ store.DedupeStore = (*ledger)(nil)

var (
	effects   = []byte("effects")   // in their order: publisher, topic and number
	positions = []byte("positions") // by stream
)

func openLedger(dir string) (*ledger, error) {
	db, err := bolt.Open(filepath.Join(dir, "ledger"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	return &ledger{db}, db.Update(func(tx *bolt.Tx) error {
		_, err1 := tx.CreateBucketIfNotExists(effects)
		_, err2 := tx.CreateBucketIfNotExists(positions)
		return errors.Join(err1, err2)
	})
}

func (l *ledger) Close() error { return l.db.Close() }

// commit is the effect of a handler.
func (l *ledger) commit(msg *message.Message, c content) error {
	p, ok := buffstreams.PositionFromContext(msg.Context())
	if !ok {
		return errors.New("crash: a message without a position")
	}
	return l.db.Update(func(tx *bolt.Tx) error {
		log := tx.Bucket(effects)
		n, err := log.NextSequence()
		if err != nil {
			return err
		}
		entry := fmt.Sprintf("%s %s %d", c.publisher, c.topic, c.number)
		if err := log.Put(binary.BigEndian.AppendUint64(nil, n), []byte(entry)); err != nil {
			return err
		}
		return tx.Bucket(positions).Put(streamKey(p.StreamID), binary.BigEndian.AppendUint64(nil, p.Sequence))
	})
}

func streamKey(id store.StreamID) []byte {
	return fmt.Appendf(nil, "%x %d %s", id.Publisher, id.Stream, id.Topic)
}

// Load implements store.DedupeStore.
func (l *ledger) Load(id store.StreamID) (state store.StreamState, ok bool, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		if at := tx.Bucket(positions).Get(streamKey(id)); at != nil {
			state.Settled, ok = []store.Range{{First: 1, Last: binary.BigEndian.Uint64(at)}}, true
		}
		return nil
	})
	return state, ok, err
}

// Save implements store.DedupeStore: commit has done it.
func (l *ledger) Save(map[store.StreamID]store.StreamState) error { return nil }

// Forget implements store.DedupeStore.
func (l *ledger) Forget(id store.StreamID) error {
	return l.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(positions).Delete(streamKey(id)) })
}

// readEffects returns what a subscriber's lives left in the ledger, as if by one life: nothing may be there twice.
func readEffects(t *testing.T, dir string) (all []handling) {
	l, err := openLedger(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.NoError(t, l.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(effects).ForEach(func(_, entry []byte) error {
			var h handling
			_, err := fmt.Sscan(string(entry), &h.flow.publisher, &h.flow.topic, &h.number)
			all = append(all, h)
			return err
		})
	}))
	return all
}
