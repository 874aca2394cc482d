package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
)

var name = []byte("bucket")

func fill(tx *bolt.Tx) error {
	_, err := tx.CreateBucket(name)
	return err
}

func open(t testing.TB, path string) *DB {
	db, err := Open(path, time.Second, fill)
	require.NoError(t, err)
	return db
}

// TestVerify_AcceptsWhatBboltWrites has long and short keys and values, deletes, and buckets in buckets.
func TestVerify_AcceptsWhatBboltWrites(t *testing.T) {
	path := filepath.Join(testenv.Dir(t), "file")
	rng := rand.New(rand.NewPCG(1, 1))
	for round := range 25 {
		db := open(t, path)
		for range 4 {
			require.NoError(t, db.Update(func(tx *bolt.Tx) error {
				b := tx.Bucket(name)
				if round%3 == 0 {
					var err error
					if b, err = b.CreateBucketIfNotExists(fmt.Appendf(nil, "inner %d", rng.IntN(3))); err != nil {
						return err
					}
				}
				return change(b, rng)
			}))
		}
		require.NoError(t, db.Close())
	}
}

// TestVerify_RefusesAPageThatIsFreeAndInUse puts the page of the tree's root into the list of free pages, which has no
// checksum: the next commits would overwrite the tree.
func TestVerify_RefusesAPageThatIsFreeAndInUse(t *testing.T) {
	path := filepath.Join(testenv.Dir(t), "file")
	db := open(t, path)
	for n := range byte(5) {
		require.NoError(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket(name).Put([]byte{n}, make([]byte, 9000)) }))
	}
	require.NoError(t, db.Close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	m, err := newest(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	list := data[int64(m.freelist)*m.pageSize:]
	require.NotZero(t, order.Uint16(list[10:]), "a page is free")
	order.PutUint64(list[pageHeader:], m.root)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	_, err = Open(path, 0, fill)
	var damage *DamageError
	require.ErrorAs(t, err, &damage)
}

func change(b *bolt.Bucket, rng *rand.Rand) error {
	doomed, grow := rng.IntN(10), rng.IntN(2) == 0
	for range 200 {
		key := fmt.Appendf(nil, "%d %0*d", rng.IntN(10), 1+rng.IntN(60), rng.IntN(1000))
		var err error
		if grow {
			err = b.Put(key, make([]byte, rng.IntN(1+rng.IntN(9000))))
		} else {
			err = b.Delete(key)
		}
		if err != nil {
			return err
		}
	}
	var gone [][]byte
	for k, v := b.Cursor().Seek(fmt.Append(nil, doomed)); k != nil && !grow && v != nil && len(gone) < 300; k, v = next(b, k) {
		gone = append(gone, slices.Clone(k))
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func next(b *bolt.Bucket, k []byte) (key, value []byte) {
	c := b.Cursor()
	c.Seek(k)
	return c.Next()
}

// shown is a file of which the system shows bytes that the disk does not have.
type shown struct {
	show, disk []byte
	written    bool // since the last fsync
}

func (s *shown) ReadAt(p []byte, offset int64) (int, error) {
	return bytes.NewReader(s.show).ReadAt(p, offset)
}

func (s *shown) WriteAt(p []byte, offset int64) (int, error) {
	s.written = true
	return copy(s.show[offset:], p), nil
}

// Sync makes durable what was written since the last fsync, as a system does that gave up on the bytes before.
func (s *shown) Sync() error {
	if s.written {
		m, err := newest(s, int64(len(s.show)))
		if err != nil {
			return err
		}
		copy(s.disk[m.offset:m.offset+m.pageSize], s.show[m.offset:])
	}
	return nil
}

// TestOpen_MakesACommitDurableThatIsOnlyShown has a commit whose last fsync failed. The next commit of bbolt would
// reuse the pages of the commit before, which is all that the disk has.
func TestOpen_MakesACommitDurableThatIsOnlyShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	db := open(t, path)
	put := func(v string) {
		require.NoError(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket(name).Put([]byte("key"), []byte(v)) }))
	}
	put("old")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	put("new")
	require.NoError(t, db.Close())
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	m, err := newest(&shown{show: after}, int64(len(after)))
	require.NoError(t, err)

	f := &shown{show: slices.Clone(after), disk: slices.Clone(after)}
	copy(f.disk[m.offset:m.offset+m.pageSize], before[m.offset:])
	require.NotEqual(t, f.show, f.disk)
	require.NoError(t, rewriteMeta(f, int64(len(after))))
	require.Equal(t, f.show, f.disk)
}

// TestOpen_OneProcessAtATime lets many open a file at once that does not exist yet.
func TestOpen_OneProcessAtATime(t *testing.T) {
	for range 10 {
		path := filepath.Join(testenv.Dir(t), "file")
		var wg sync.WaitGroup
		var mu sync.Mutex // guards opened
		var opened []*DB
		for range 8 {
			wg.Go(func() { // ends with Open; the test waits for it
				db, err := Open(path, 0, fill)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					opened = append(opened, db)
				} else if !errors.Is(err, ErrLocked) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, db := range opened {
			require.NoError(t, db.Close())
		}
		require.Len(t, opened, 1)
		names, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, names, 1, "nothing is left behind")
		require.NoError(t, open(t, path).Close())
	}
}

// TestOpen_RefusesForeignBytes must not panic either.
func TestOpen_RefusesForeignBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{0, 1, 64, 80, 4096, 8192, 40000} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		require.NoError(t, os.WriteFile(path, data, 0o600))
		_, err := Open(path, 0, fill)
		var damage *DamageError
		require.ErrorAs(t, err, &damage, "%d bytes", size)
		require.ErrorAs(t, Prepare(path), &damage)
	}
	require.NoError(t, Prepare(path+".not"))
}

// TestOpen_SyncsNames: a file whose name is not durable is lost as a whole, with all that was saved in it.
func TestOpen_SyncsNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "file")
	var synced []string
	failing := errors.New("no fsync")
	o := opener{func(dir string) error {
		synced = append(synced, filepath.Base(dir))
		return nil
	}}
	bad := opener{func(string) error { return failing }}
	require.ErrorIs(t, bad.makeDir(dir), failing)
	require.NoError(t, os.RemoveAll(filepath.Dir(dir)))
	require.NoError(t, o.makeDir(dir))
	require.Equal(t, "a", synced[0])
	require.Len(t, synced, 2, "both are new")

	synced = nil
	require.ErrorIs(t, bad.create(path, fill), failing)
	require.NoError(t, os.Remove(path))
	require.NoError(t, o.create(path, fill))
	require.Equal(t, []string{"b"}, synced)
	_, err := bad.open(path, 0, fill)
	require.ErrorIs(t, err, failing, "a predecessor may have died before its fsync")
	require.ErrorIs(t, bad.prepareAt(path), failing)
	db, err := o.open(path, 0, fill)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

func TestMakeDir_ForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		require.NoError(t, MakeDir(dir))
	}
	info, err := os.Stat(filepath.Dir(dir))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

// TestDB_ReturnsFaultsAsErrors truncates the file while it is open, which must neither crash the process nor block a
// call.
func TestDB_ReturnsFaultsAsErrors(t *testing.T) {
	for _, left := range []int64{4096, 8192} {
		path := filepath.Join(t.TempDir(), "file")
		db := open(t, path)
		require.NoError(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket(name).Put([]byte("key"), make([]byte, 20000)) }))
		require.NoError(t, os.Truncate(path, left))
		for range 2 {
			err := db.View(func(tx *bolt.Tx) error {
				_ = slices.Clone(tx.Bucket(name).Get([]byte("key")))
				return nil
			})
			var damage *DamageError
			require.ErrorAs(t, err, &damage)
			require.ErrorAs(t, db.Update(func(*bolt.Tx) error { return nil }), &damage)
		}
		require.NoError(t, db.Close())
	}
}
