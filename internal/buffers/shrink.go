package buffers

import "maps"

// Shrink returns a map that takes the memory that the entries of m need: m itself, or a copy if m had many more once,
// as a map keeps what it has grown to. It is called after each delete. most is the caller's count of what the map had.
func Shrink[K comparable, V any](m map[K]V, most *int) map[K]V {
	if *most = max(*most, len(m)+1); *most < 64 || len(m) > *most/8 {
		return m
	}
	small := make(map[K]V, len(m))
	maps.Copy(small, m)
	*most = len(m)
	return small
}
