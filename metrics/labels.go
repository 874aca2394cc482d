package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
)

// labels bounds the values of each label.
type labels struct {
	topics, groups, addresses, listeners, outboxes *bounded
	most                                           int
}

func newLabels(most int) *labels {
	return &labels{newBounded(most), newBounded(most), newBounded(most), newBounded(most), newBounded(most), most}
}

// bounded is the first values of a label that were seen.
type bounded struct {
	most int
	seen atomic.Pointer[map[string]struct{}] // never changed; replaced with mu held
	mu   sync.Mutex
}

func newBounded(most int) *bounded {
	b := &bounded{most: most}
	b.seen.Store(&map[string]struct{}{})
	return b
}

// value returns v, or Other for one of too many.
func (b *bounded) value(v string) string {
	seen := *b.seen.Load()
	if _, ok := seen[v]; ok {
		return v
	}
	if len(seen) >= b.most {
		return Other
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	seen = *b.seen.Load()
	if _, ok := seen[v]; !ok {
		if len(seen) >= b.most {
			return Other
		}
		more := maps.Clone(seen)
		more[v] = struct{}{}
		b.seen.Store(&more)
	}
	return v
}

// pair is the values of two labels.
type pair struct{ a, b string }

// children are the series of an event, by one or two labels, so that no event looks them up by their names. There are
// at most twice as many as a label has values; the others share one.
type children[T any] struct {
	a, b  *bounded // b is nil where there is one label
	most  int
	make  func(p pair) *T
	known atomic.Pointer[map[pair]*T] // by the names as they came; never changed; replaced with mu held
	mu    sync.Mutex
	made  map[pair]*T // by the values of the labels
}

func newChildren[T any](a, b *bounded, construct func(p pair) *T) *children[T] {
	c := &children[T]{a: a, b: b, most: 2 * a.most, make: construct, made: map[pair]*T{}}
	c.known.Store(&map[pair]*T{})
	return c
}

// get returns the series for two names; the second is empty where there is one label.
func (c *children[T]) get(a, b string) *T {
	p := pair{a, b}
	known := *c.known.Load()
	if t := known[p]; t != nil {
		return t
	}
	values := pair{c.a.value(a), ""}
	if c.b != nil {
		values.b = c.b.value(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.made[values]
	if t == nil {
		if len(c.made) >= c.most {
			values = pair{Other, Other}
			if c.b == nil {
				values.b = ""
			}
			t = c.made[values]
		}
		if t == nil {
			t = c.make(values)
			c.made[values] = t
		}
	}
	known = *c.known.Load()
	if len(known) < c.most { // names beyond that are looked up each time
		more := maps.Clone(known)
		more[p] = t
		c.known.Store(&more)
	}
	return t
}
