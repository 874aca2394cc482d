package boltfile

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"io"
	"slices"
)

// The layout of bbolt's format 2. Numbers are in the byte order of the machine.
const (
	pageHeader    = 16 // id 8, flags 2, count 2, overflow 4
	elementSize   = 16 // of leaf and branch pages both
	bucketHeader  = 16 // root page 8, sequence 8
	metaSize      = 64 // after the page header
	metaSum       = metaSize - 8
	magic         = 0xED0CDAED
	formatVersion = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	leafBucket   = 0x01 // flag of an element

	noFreelist  = ^uint64(0)
	minPageSize = 1 << 10
	maxPageSize = 1 << 16
	maxDepth    = 64
)

var order = binary.NativeEndian

// meta is an intact meta page.
type meta struct {
	offset   int64
	pageSize int64
	root     uint64 // page
	freelist uint64 // page, or noFreelist
	pages    uint64 // all pages of the file lie below
	txid     uint64
}

// tree verifies the pages that one meta page reaches.
type tree struct {
	r    io.ReaderAt
	m    meta
	used []bool // by page
}

// verify verifies every page that the newest meta page reaches, and returns that meta page. What keys and values
// contain is for the caller to check.
func verify(r io.ReaderAt, size int64) (meta, error) {
	m, err := newest(r, size)
	if err != nil {
		return m, err
	}
	if m.pages < 3 || m.pages > uint64(size/m.pageSize) {
		return m, damage("%d bytes are less than its %d pages take", size, m.pages)
	}
	t := &tree{r: r, m: m, used: make([]bool, m.pages)}
	t.used[0], t.used[1] = true, true
	if err := t.page(m.root, nil, nil, 0); err != nil {
		return m, err
	}
	return m, t.freelist()
}

// newest returns the meta page that bbolt will use: the intact one with the higher transaction id.
func newest(r io.ReaderAt, size int64) (best meta, err error) {
	if size == 0 {
		return best, damage("it is empty")
	}
	found := false
	for offset := int64(0); offset <= maxPageSize; offset = max(2*offset, minPageSize) {
		buf := make([]byte, pageHeader+metaSize)
		if _, err := r.ReadAt(buf, offset); err == io.EOF {
			break
		} else if err != nil {
			return best, err
		}
		m, ok := decodeMeta(buf[pageHeader:])
		// The second meta page is page 1, which lies where the page size says.
		if m.offset = offset; ok && (offset == 0 || offset == m.pageSize) && (!found || m.txid > best.txid) {
			best, found = m, true
		}
	}
	if !found {
		return best, damage("neither of its meta pages is intact")
	}
	return best, nil
}

func decodeMeta(b []byte) (m meta, ok bool) {
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSum])
	if order.Uint32(b) != magic || order.Uint32(b[4:]) != formatVersion || order.Uint64(b[metaSum:]) != sum.Sum64() {
		return m, false
	}
	m.pageSize = int64(order.Uint32(b[8:]))
	m.root, m.freelist = order.Uint64(b[16:]), order.Uint64(b[32:])
	m.pages, m.txid = order.Uint64(b[40:]), order.Uint64(b[48:])
	return m, m.pageSize >= minPageSize && m.pageSize <= maxPageSize
}

// read returns a page with its overflow pages, and marks all of these as used. A page that is reached twice is an
// error, so that no walk goes in circles.
func (t *tree) read(id uint64) (buf []byte, err error) {
	header := make([]byte, pageHeader)
	if id >= t.m.pages {
		return nil, damage("page %d lies behind the end", id)
	}
	if _, err := t.r.ReadAt(header, int64(id)*t.m.pageSize); err != nil {
		return nil, err
	}
	pages := uint64(order.Uint32(header[12:])) + 1
	if order.Uint64(header) != id || pages > t.m.pages-id {
		return nil, damage("page %d is not what it should be", id)
	}
	for i := id; i < id+pages; i++ {
		if t.used[i] {
			return nil, damage("page %d is in use twice", i)
		}
		t.used[i] = true
	}
	buf = make([]byte, pages*uint64(t.m.pageSize))
	_, err = t.r.ReadAt(buf, int64(id)*t.m.pageSize)
	return buf, err
}

// page verifies a page and those below it. Its first key must be low, by which bbolt finds the page, and its keys must
// lie before high; nil means that there is no such bound.
func (t *tree) page(id uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return damage("page %d lies too deep", id)
	}
	buf, err := t.read(id)
	if err != nil {
		return err
	}
	return t.elements(id, buf, low, high, depth)
}

// elements verifies the keys and values of a page, and the pages that they lead to.
func (t *tree) elements(id uint64, buf []byte, low, high []byte, depth int) error {
	flags, count := order.Uint16(buf[8:]), int(order.Uint16(buf[10:]))
	if flags != flagLeaf && flags != flagBranch || pageHeader+count*elementSize > len(buf) {
		return damage("page %d is neither leaf nor branch", id)
	}
	if count == 0 && (flags == flagBranch || low != nil) {
		return damage("page %d is empty", id)
	}
	keys := make([][]byte, count)
	for i := range keys {
		key, value, ok := element(buf, i, flags)
		if !ok || (i > 0 && bytes.Compare(keys[i-1], key) >= 0) || (i == 0 && low != nil && !bytes.Equal(key, low)) ||
			(high != nil && bytes.Compare(key, high) >= 0) {
			return damage("page %d has a key or value out of place", id)
		}
		keys[i] = key
		if flags == flagLeaf && order.Uint32(buf[pageHeader+i*elementSize:])&leafBucket != 0 {
			if err := t.bucket(id, value, depth); err != nil {
				return err
			}
		}
	}
	for i := 0; flags == flagBranch && i < count; i++ {
		end := high
		if i+1 < count {
			end = keys[i+1]
		}
		if err := t.page(order.Uint64(buf[pageHeader+i*elementSize+8:]), keys[i], end, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// element returns the i-th key of a page, and its value if the page is a leaf.
func element(buf []byte, i int, flags uint16) (key, value []byte, ok bool) {
	start := uint64(pageHeader + i*elementSize)
	e := buf[start:]
	pos, ksize, vsize := uint64(order.Uint32(e)), uint64(order.Uint32(e[4:])), uint64(0)
	if flags == flagLeaf {
		pos, ksize, vsize = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:]))
	}
	at, first := start+pos, uint64(pageHeader)+uint64(order.Uint16(buf[10:]))*elementSize
	if at < first || at+ksize+vsize > uint64(len(buf)) {
		return nil, nil, false
	}
	return buf[at : at+ksize : at+ksize], buf[at+ksize : at+ksize+vsize], true
}

// bucket verifies the page that the value of a bucket's name leads to, or that lies in the value itself.
func (t *tree) bucket(id uint64, value []byte, depth int) error {
	if len(value) < bucketHeader {
		return damage("page %d has a truncated bucket", id)
	}
	if root := order.Uint64(value); root != 0 {
		return t.page(root, nil, nil, depth+1)
	}
	inline := slices.Clone(value[bucketHeader:])
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != flagLeaf || depth > maxDepth {
		return damage("page %d has a truncated bucket", id)
	}
	return t.elements(id, inline, nil, nil, depth+1)
}

// freelist verifies that no page is both free and in use: the next commits would overwrite it.
func (t *tree) freelist() error {
	if t.m.freelist == noFreelist {
		return nil
	}
	buf, err := t.read(t.m.freelist)
	if err != nil {
		return err
	}
	list, count := buf[pageHeader:], uint64(order.Uint16(buf[10:]))
	if count == 0xFFFF {
		count, list = order.Uint64(list), list[8:]
	}
	if order.Uint16(buf[8:]) != flagFreelist || count > uint64(len(list)/8) {
		return damage("page %d is not the list of free pages", t.m.freelist)
	}
	for i := range count {
		id := order.Uint64(list[8*i:])
		if id >= t.m.pages || t.used[id] {
			return damage("page %d is in use and free", id)
		}
		t.used[id] = true
	}
	return nil
}
