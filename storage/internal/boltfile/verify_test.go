package boltfile

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// crafted is a file of bbolt, page by page.
type crafted struct {
	meta  [2]meta // txid 0: that one is not intact
	pages map[uint64][]byte
}

const craftedPage = minPageSize

// cell is an element of a page: a key with its value, or with the page that it leads to.
type cell struct {
	key, value string
	page       uint64
	bucket     bool
}

func newPage(id uint64, flags uint16, cells ...cell) []byte {
	b := make([]byte, craftedPage)
	order.PutUint64(b, id)
	order.PutUint16(b[8:], flags)
	order.PutUint16(b[10:], uint16(len(cells)))
	at := pageHeader + len(cells)*elementSize
	for i, c := range cells {
		start := pageHeader + i*elementSize
		e := b[start:]
		if flags == flagBranch {
			order.PutUint32(e, uint32(at-start))
			order.PutUint32(e[4:], uint32(len(c.key)))
			order.PutUint64(e[8:], c.page)
		} else {
			if c.bucket {
				order.PutUint32(e, leafBucket)
			}
			order.PutUint32(e[4:], uint32(at-start))
			order.PutUint32(e[8:], uint32(len(c.key)))
			order.PutUint32(e[12:], uint32(len(c.value)))
		}
		at += copy(b[at:], c.key+c.value)
	}
	return b
}

func freePages(id uint64, free ...uint64) []byte {
	b := newPage(id, flagFreelist)
	order.PutUint16(b[10:], uint16(len(free)))
	for i, f := range free {
		order.PutUint64(b[pageHeader+8*i:], f)
	}
	return b
}

// rootBucket is the value of a bucket whose root is a page.
func rootBucket(page uint64) string {
	b := make([]byte, bucketHeader)
	order.PutUint64(b, page)
	return string(b)
}

// inlineBucket is the value of a bucket whose only page lies in the value.
func inlineBucket(page []byte) string { return rootBucket(0) + string(page) }

// wellFormed has a branch with two leaves, whose last page is one of two, buckets of both kinds, and a free page.
func wellFormed() *crafted {
	long := append(newPage(5, flagLeaf, cell{key: "m", value: "1"}, cell{key: "x", value: inlineBucket(newPage(0, flagLeaf, cell{key: "k", value: "v"})[:100]), bucket: true}),
		make([]byte, craftedPage)...)
	order.PutUint32(long[12:], 1)
	return &crafted{
		meta: [2]meta{{pageSize: craftedPage, root: 3, freelist: 2, pages: 9, txid: 7}, {pageSize: craftedPage, root: 9, freelist: 2, pages: 9, txid: 6}},
		pages: map[uint64][]byte{
			2: freePages(2, 8),
			3: newPage(3, flagBranch, cell{key: "a", page: 4}, cell{key: "m", page: 5}),
			4: newPage(4, flagLeaf, cell{key: "a", value: "1"}, cell{key: "b", value: rootBucket(7), bucket: true}, cell{key: "c"}),
			5: long[:2*craftedPage],
			7: newPage(7, flagLeaf),
			8: newPage(8, flagLeaf),
		},
	}
}

func (c *crafted) bytes() []byte {
	last := slices.Max(slices.Collect(maps.Keys(c.pages)))
	b := make([]byte, int(last+1)*craftedPage)
	for i, m := range c.meta {
		p := b[i*craftedPage+pageHeader:]
		order.PutUint32(p, magic)
		order.PutUint32(p[4:], formatVersion)
		order.PutUint32(p[8:], uint32(m.pageSize))
		order.PutUint64(p[16:], m.root)
		order.PutUint64(p[32:], m.freelist)
		order.PutUint64(p[40:], m.pages)
		order.PutUint64(p[48:], m.txid)
		sum := fnv.New64a()
		_, _ = sum.Write(p[:metaSum])
		if m.txid != 0 {
			order.PutUint64(p[metaSum:], sum.Sum64())
		}
	}
	for id, p := range c.pages {
		copy(b[int(id)*craftedPage:], p)
	}
	return b
}

func (c *crafted) verify() (meta, error) {
	b := c.bytes()
	return verify(bytes.NewReader(b), int64(len(b)))
}

// TestVerify_ChoosesTheNewestMeta of those that are intact.
func TestVerify_ChoosesTheNewestMeta(t *testing.T) {
	for _, order := range [][2]uint64{{7, 6}, {6, 7}, {7, 0}, {0, 7}} {
		c := wellFormed()
		good, older := c.meta[0], c.meta[1]
		for i, txid := range order {
			c.meta[i] = older
			if txid == 7 {
				c.meta[i] = good
			}
			c.meta[i].txid = txid
		}
		m, err := c.verify()
		require.NoError(t, err, order)
		require.EqualValues(t, 7, m.txid)
		require.EqualValues(t, map[bool]int{true: 0, false: craftedPage}[order[0] == 7], m.offset)
	}
}

// TestVerify_RefusesEachPartOutOfPlace changes a well-formed file in one place: what bbolt would panic on, loop on, or
// overwrite.
func TestVerify_RefusesEachPartOutOfPlace(t *testing.T) {
	_, err := wellFormed().verify()
	require.NoError(t, err)
	for what, change := range outOfPlace() {
		c := wellFormed()
		change(c)
		_, err := c.verify()
		var damage *DamageError
		require.ErrorAs(t, err, &damage, what)
	}
}

func outOfPlace() map[string]func(*crafted) {
	leaf := func(id uint64, cells ...cell) func(*crafted) {
		return func(c *crafted) { c.pages[id] = newPage(id, flagLeaf, cells...) }
	}
	put32 := func(id uint64, at int, v uint32) func(*crafted) {
		return func(c *crafted) { order.PutUint32(c.pages[id][at:], v) }
	}
	second := pageHeader + elementSize
	return map[string]func(*crafted){
		"one page only":              func(c *crafted) { c.meta[0].pages = 1 },
		"more pages than bytes":      func(c *crafted) { c.meta[0].pages = 10 },
		"root behind the end":        func(c *crafted) { c.meta[0].root = 9 },
		"root is a meta page":        func(c *crafted) { c.meta[0].root = 1 },
		"another page's id":          func(c *crafted) { order.PutUint64(c.pages[4], 6) },
		"overflow behind the end":    put32(7, 12, 2),
		"overflow into another page": put32(4, 12, 1),
		"a page in use twice": func(c *crafted) {
			c.pages[3] = newPage(3, flagBranch, cell{key: "a", page: 4}, cell{key: "m", page: 4})
		},
		"neither leaf nor branch":            func(c *crafted) { c.pages[7][8] = flagLeaf | flagBranch },
		"more elements than bytes":           func(c *crafted) { order.PutUint16(c.pages[7][10:], craftedPage/elementSize) },
		"an empty branch":                    func(c *crafted) { c.pages[3] = newPage(3, flagBranch) },
		"an empty leaf below a branch":       leaf(4),
		"a key twice":                        leaf(4, cell{key: "a"}, cell{key: "b"}, cell{key: "b"}),
		"keys in descending order":           leaf(4, cell{key: "a"}, cell{key: "c"}, cell{key: "b"}),
		"a first key above the branch's":     leaf(4, cell{key: "b"}),
		"a first key below the branch's":     leaf(4, cell{key: "A"}, cell{key: "b"}),
		"a last key that is the next page's": leaf(4, cell{key: "a"}, cell{key: "m"}),
		"a last key of the next page":        leaf(4, cell{key: "a"}, cell{key: "n"}),
		"a key within the elements": func(c *crafted) {
			c.pages[7] = newPage(7, flagLeaf, cell{key: "k"})
			order.PutUint32(c.pages[7][pageHeader+4:], 0)
		},
		"a value behind the end":        put32(4, second+12, craftedPage),
		"a key behind the end":          put32(4, second+4, craftedPage),
		"a branch's key behind the end": put32(3, second, craftedPage),
		"a truncated bucket":            leaf(4, cell{key: "a", value: rootBucket(7)[:bucketHeader-1], bucket: true}),
		"a truncated inline bucket":     leaf(4, cell{key: "a", value: inlineBucket(newPage(0, flagLeaf)[:9]), bucket: true}),
		"an inline bucket that is no leaf": func(c *crafted) {
			branch := newPage(0, flagBranch, cell{key: "a", page: 7})[:100]
			c.pages[4] = newPage(4, flagLeaf, cell{key: "a", value: inlineBucket(branch), bucket: true})
			c.pages[7] = newPage(7, flagLeaf, cell{key: "a"})
		},
		"a bucket whose page is in use":     leaf(4, cell{key: "a", value: rootBucket(5), bucket: true}),
		"the list of free pages is no list": func(c *crafted) { c.pages[2][8] = flagLeaf },
		"the list is in use":                func(c *crafted) { c.meta[0].freelist = 7 },
		"more free pages than bytes":        func(c *crafted) { order.PutUint16(c.pages[2][10:], craftedPage/8-1) },
		"a long list with more than bytes": func(c *crafted) {
			c.pages[2] = freePages(2, craftedPage/8-2, 8)
			order.PutUint16(c.pages[2][10:], 0xFFFF)
		},
		"a free page behind the end":     func(c *crafted) { c.pages[2] = freePages(2, 9) },
		"a page free twice":              func(c *crafted) { c.pages[2] = freePages(2, 8, 8) },
		"a free page in use":             func(c *crafted) { c.pages[2] = freePages(2, 8, 7) },
		"the second page of two is free": func(c *crafted) { c.pages[2] = freePages(2, 6) },
		"a meta page is free":            func(c *crafted) { c.pages[2] = freePages(2, 1) },
		"pages below one another, deeply": func(c *crafted) {
			c.deepen(maxDepth)
			c.pages[5], c.pages[2] = newPage(5, flagLeaf, cell{key: "m"}), freePages(2, 8, 6)
		},
		"inline buckets in one another, deeply": func(c *crafted) {
			c.deepen(maxDepth - 1)
			inner := newPage(0, flagLeaf, cell{key: "k", value: inlineBucket(newPage(0, flagLeaf)[:pageHeader]), bucket: true})[:100]
			c.pages[5], c.pages[2] = newPage(5, flagLeaf, cell{key: "m", value: inlineBucket(inner), bucket: true}), freePages(2, 8, 7, 6)
			c.pages[4] = newPage(4, flagLeaf, cell{key: "a"})
		},
	}
}

// deepen puts pages above the root.
func (c *crafted) deepen(n uint64) {
	c.meta[0].pages = 9 + n
	for i := range n {
		c.pages[9+i] = newPage(9+i, flagBranch, cell{key: "a", page: c.meta[0].root})
		c.meta[0].root = 9 + i
	}
}

// TestVerify_AcceptsTheUnusual is what bbolt can write, and seldom does.
func TestVerify_AcceptsTheUnusual(t *testing.T) {
	for what, change := range map[string]func(*crafted){
		"no list of free pages": func(c *crafted) { c.meta[0].freelist = noFreelist },
		"nothing is free":       func(c *crafted) { c.pages[2] = freePages(2) },
		"an empty root":         func(c *crafted) { c.pages[3], c.pages[2] = newPage(3, flagLeaf), freePages(2, 4, 5, 6, 7, 8) },
		"as deep as may be":     func(c *crafted) { c.deepen(maxDepth - 2) },
		"a value to the last byte": func(c *crafted) {
			c.pages[7] = newPage(7, flagLeaf, cell{key: "k", value: string(make([]byte, craftedPage-pageHeader-elementSize-1))})
		},
		"a list with its own count": func(c *crafted) { c.pages[2] = freePages(2, 1, 8); order.PutUint16(c.pages[2][10:], 0xFFFF) },
	} {
		c := wellFormed()
		before := maps.Clone(c.pages)
		change(c)
		_, err := c.verify()
		require.NoError(t, err, what)
		require.NotEqual(t, fmt.Sprint(before, wellFormed().meta), fmt.Sprint(c.pages, c.meta), what)
	}
}
