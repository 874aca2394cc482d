package outbox

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

const (
	// DefaultQuotaBytes bounds what one destination may have pending.
	DefaultQuotaBytes = 1 << 30
	// DefaultSegmentBytes is the size of a segment file.
	DefaultSegmentBytes = 16 << 20
	// DefaultCacheBytes bounds the messages kept in memory for readers that keep up.
	DefaultCacheBytes = 4 << 20

	// MaxAppendBytes bounds the messages of one Append, which are stored in one record of the log, all of them or none.
	MaxAppendBytes = 16 << 20
	// MaxKeyBytes bounds the destination and the topic of a store.Key, each.
	MaxKeyBytes = 4096
	// MessageOverhead is what a message counts against the quota besides its own bytes, so that empty messages cannot
	// fill the disk either.
	MessageOverhead = 16

	minSegmentBytes = 4 << 10
	maxSegmentBytes = 1 << 30
)

// Config says where an outbox lies and how much it may hold. Only Dir is required.
type Config struct {
	// Dir is the directory of the outbox and of nothing else. Open creates it if there is none, and sets its mode to
	// 0700. If another user owns it, it must be closed to all but that user and a group. One process at a time can have
	// it open.
	Dir string

	// QuotaBytes bounds what one destination may have pending, in bytes of messages plus MessageOverhead for each; 0
	// means DefaultQuotaBytes. The disk holds at most about twice what is pending, plus six segments.
	QuotaBytes int64

	// SegmentBytes is the size of a segment, which is a file of the log: disk space is allocated and given back in
	// segments. 0 means DefaultSegmentBytes. Open reads at most one segment to find the end of the log.
	SegmentBytes int

	// CacheBytes bounds the memory that keeps the newest messages for readers that keep up; 0 means DefaultCacheBytes,
	// -1 none.
	CacheBytes int

	// Hooks are told of appends, writes to the disk and recovery: see package hooks of the core. OnOutboxAppended is
	// called on the goroutine of the Append, OnOutboxSynced on the one that writes, and OnOutboxRecovered on that of
	// Open, which each of them holds up while it blocks. A panic is ignored.
	Hooks []hooks.Hook

	// open replaces the disk in tests.
	open func(dir string) (storage, error)
}

// storage is the disk of an outbox.
type storage struct {
	fs   types.VFS
	meta types.MetaStore
	lock io.Closer
}

func (c *Config) setDefaults() {
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuotaBytes
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = DefaultSegmentBytes
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = DefaultCacheBytes
	}
	if c.open == nil {
		c.open = openDisk
	}
}

// Validate returns an error that names the first field with a value that Open refuses, or nil.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("outbox: Config.Dir is empty: name a directory for the outbox alone")
	case c.QuotaBytes < 0:
		return fmt.Errorf("outbox: Config.QuotaBytes is %d: it must not be negative", c.QuotaBytes)
	case c.SegmentBytes != 0 && (c.SegmentBytes < minSegmentBytes || c.SegmentBytes > maxSegmentBytes):
		return fmt.Errorf("outbox: Config.SegmentBytes is %d: it must lie between %d and %d",
			c.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	case c.CacheBytes < -1:
		return fmt.Errorf("outbox: Config.CacheBytes is %d: use -1 for no cache", c.CacheBytes)
	}
	return nil
}
