package buffers

import (
	"maps"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestShrink_CopiesWhenFewOfManyAreLeft(t *testing.T) {
	const full = 1000
	m, most, copied := map[int]int{}, 0, 0
	for i := range full {
		m[i] = i
	}
	want := maps.Clone(m)
	for i := range full {
		delete(m, i)
		delete(want, i)
		before := reflect.ValueOf(m).Pointer()
		if m = Shrink(m, &most); reflect.ValueOf(m).Pointer() != before {
			copied++
		}
		require.Equal(t, want, m)
	}
	require.Equal(t, 2, copied, "at an eighth, and at an eighth of that")
	m[1] = 1
	delete(m, 1)
	require.Equal(t, reflect.ValueOf(m).Pointer(), reflect.ValueOf(Shrink(m, &most)).Pointer(), "a small one stays")
}
