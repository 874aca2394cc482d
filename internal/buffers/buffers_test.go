package buffers

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGet_HasRoomAndWastesLittle(t *testing.T) {
	for _, n := range []int{0, 1, minSize - 1, minSize, minSize + 1, 5<<10 + 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1<<20 + 1} {
		buf := Get(n)
		require.Empty(t, buf)
		require.GreaterOrEqual(t, cap(buf), n)
		require.LessOrEqual(t, cap(buf), n+n/4+1)
	}
}

func TestGet_EverySizeHasAClassOfItsOwn(t *testing.T) {
	seen := map[int]int{}
	for n := minSize; n < 1<<20; n += 512 {
		size, class := classOf(n)
		require.GreaterOrEqual(t, size, n)
		again, same := classOf(size)
		require.Equal(t, []int{size, class}, []int{again, same})
		if other, ok := seen[class]; ok {
			require.Equal(t, other, size)
		}
		seen[class] = size
	}
}

// stored puts a buffer of n bytes into a store and returns what is kept.
func stored(l *freeList, n int) int {
	size, class := classOf(n)
	l.put(make([]byte, 0, size), class)
	return l.kept()
}

func (l *freeList) kept() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

func TestPut_MemoryIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s freeList
		size, class := classOf(64 << 10)
		buf := make([]byte, 1, size)
		s.put(buf[:0], class)
		got := s.get(class)
		require.Same(t, &buf[0], &got[:1][0])
		require.Nil(t, s.get(class))
		require.Zero(t, s.kept())
		time.Sleep(2 * idleTime)
	})
}

func TestSweep_DropsWhatIsNotNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s freeList
		stored(&s, minSize)
		stored(&s, minSize)
		_, class := classOf(minSize)
		for range 5 {
			time.Sleep(idleTime) // one of both is needed
			synctest.Wait()
			buf := s.get(class)
			require.NotNil(t, buf)
			s.put(buf, class)
		}
		require.Equal(t, minSize, s.kept())
		time.Sleep(3 * idleTime)
		require.Zero(t, s.kept())
		require.Equal(t, minSize, stored(&s, minSize), "it can begin anew")
		time.Sleep(3 * idleTime)
	})
}

func TestPut_KeepsOnlySoMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s freeList
		for range 50 {
			require.LessOrEqual(t, stored(&s, 1<<20), maxBytes)
		}
		time.Sleep(3 * idleTime)
	})
}

func TestPut_LeavesOthers(t *testing.T) {
	before := free.kept()
	Put(make([]byte, 0, minSize+1)) // would be given to a Get that needs more
	Put(make([]byte, 0, minSize-1))
	require.Equal(t, before, free.kept())
}
