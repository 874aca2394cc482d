package outbox

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestAppend_TakesAllUpToTheLimits appends what is exactly as large as may be, and what is a byte larger.
func TestAppend_TakesAllUpToTheLimits(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	largest, long := make([]byte, MaxAppendBytes-4), strings.Repeat("x", MaxKeyBytes) // four bytes are its length
	within, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	for _, k := range []store.Key{orders, {Destination: long, Topic: long}} {
		first, err := o.Append(within, k, largest)
		require.NoError(t, err)
		require.EqualValues(t, 1, first)
	}
	for want, k := range map[store.SizeError]store.Key{
		{What: "messages", Size: MaxAppendBytes + 1, Limit: MaxAppendBytes}: orders,
		{What: "destination", Size: MaxKeyBytes + 1, Limit: MaxKeyBytes}:    {Destination: long + "x"},
		{What: "topic", Size: MaxKeyBytes + 1, Limit: MaxKeyBytes}:          {Topic: long + "x"},
	} {
		message := []byte(nil)
		if want.What == "messages" {
			message = append(largest, 0)
		}
		_, err := o.Append(within, k, message)
		var size *store.SizeError
		require.ErrorAs(t, err, &size)
		require.Equal(t, want, *size)
	}
}

// TestQuota_IsExact fills a destination to its last byte. Ready names what was refused, until there is room for it.
func TestQuota_IsExact(t *testing.T) {
	const quota = 2000
	of := func(bytes int) []byte { return make([]byte, bytes-2-MessageOverhead) } // two bytes are its length
	cfg := newMemDisk(1).config()
	cfg.QuotaBytes = quota
	o := open(t, cfg)
	refused := func(k store.Key, bytes int) store.FullError {
		t.Helper()
		_, err := o.Append(bg, k, of(bytes))
		var full *store.FullError
		require.ErrorAs(t, err, &full)
		return *full
	}
	_, err := o.Append(bg, events, of(quota))
	require.NoError(t, err)
	_, err = o.Append(bg, orders, of(quota-600), of(599))
	require.NoError(t, err)
	require.Equal(t, store.FullError{Destination: events.Destination, Pending: quota, Wanted: 200, Quota: quota}, refused(events, 200))
	require.Equal(t, store.FullError{Destination: orders.Destination, Pending: quota - 1, Wanted: quota, Quota: quota}, refused(orders, quota))
	require.Equal(t, int64(quota+1), refused(orders, quota+1).Wanted)
	third := store.Key{Destination: "10.0.0.0:5031"}
	_, err = o.Append(bg, third, of(quota-1))
	require.NoError(t, err)
	require.EqualValues(t, 150, refused(third, 150).Wanted)

	var notReady *store.NotReadyError
	require.ErrorAs(t, o.Ready(lookOnly()), &notReady)
	require.Equal(t, []error{ // the fullest first
		&store.FullError{Destination: events.Destination, Pending: quota, Wanted: 200, Quota: quota},
		&store.FullError{Destination: third.Destination, Pending: quota - 1, Wanted: 150, Quota: quota},
		&store.FullError{Destination: orders.Destination, Pending: quota - 1, Wanted: quota, Quota: quota},
	}, notReady.Reasons)

	require.NoError(t, o.Settle(events, 1))
	require.NoError(t, o.Settle(third, 1))
	require.NoError(t, o.Settle(orders, 1))
	require.Error(t, o.Ready(lookOnly()), "599 bytes are pending, and the whole quota was wanted")
	refused(orders, quota-598)
	require.Error(t, o.Ready(lookOnly()))
	refused(orders, quota)
	require.NoError(t, o.Settle(orders, 2))
	require.NoError(t, o.Ready(lookOnly()))
	_, err = o.Append(bg, orders, of(quota-600))
	require.NoError(t, err)
	refused(orders, 601)
	require.Error(t, o.Ready(lookOnly()))
}

// observer is a hook that notes appends and writes.
type observer struct {
	mu       sync.Mutex
	appended []hooks.OutboxAppended
	synced   []hooks.OutboxSynced
}

func (h *observer) OnOutboxAppended(e hooks.OutboxAppended) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.appended = append(h.appended, e)
	panic("a hook's panic is ignored")
}

func (h *observer) OnOutboxSynced(e hooks.OutboxSynced) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.synced = append(h.synced, e)
	panic("a hook's panic is ignored")
}

// TestHooks_AreToldOfAppendsAndWrites also when these fail.
func TestHooks_AreToldOfAppendsAndWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, h := newMemDisk(1), &observer{}
		cfg := d.config()
		cfg.Hooks = []hooks.Hook{h}
		o := open(t, cfg)
		synctest.Wait()
		d.onSync = func() error { time.Sleep(time.Second); return nil }
		_, err := o.Append(bg, orders, message(1), message(22))
		require.NoError(t, err)
		d.onSync = func() error { time.Sleep(time.Minute); return ioError }
		_, err = o.Append(bg, events, message(1))
		require.ErrorIs(t, err, ioError)
		require.ErrorIs(t, o.Close(), ioError)
		require.Len(t, h.appended, 2)
		require.Len(t, h.synced, 2)
		require.ErrorIs(t, h.appended[1].Err, store.ErrFailed)
		require.ErrorIs(t, h.synced[1].Err, ioError)
		h.appended[1].Err, h.synced[1].Err = nil, nil
		for i, e := range h.synced {
			require.Greater(t, e.Bytes, h.appended[i].Bytes+entryHeader, "records and their header")
			require.Less(t, e.Bytes, h.appended[i].Bytes+entryHeader+100)
			h.synced[i].Bytes = 0
		}
		require.Equal(t, []hooks.OutboxAppended{
			{Outbox: "mem", Destination: orders.Destination, Topic: orders.Topic, Messages: 2, Bytes: 10 + 11, Took: time.Second},
			{Outbox: "mem", Destination: events.Destination, Topic: events.Topic, Messages: 1, Bytes: 10, Took: time.Minute},
		}, h.appended)
		require.Equal(t, []hooks.OutboxSynced{
			{Outbox: "mem", Appends: 1, Took: time.Second}, {Outbox: "mem", Appends: 1, Took: time.Minute},
		}, h.synced)
	})
}

// TestAppend_BoundsAGroup lets appends gather during an fsync, more than one group may hold, and one that is larger.
func TestAppend_BoundsAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, h := newMemDisk(1), &observer{}
		cfg := d.config()
		cfg.Hooks = []hooks.Hook{h}
		o := open(t, cfg)
		synctest.Wait()
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		canceled, cancel := context.WithCancel(bg)
		var abandoned error
		for _, size := range []int{1, groupLimit / 2, groupLimit / 3, groupLimit / 2, groupLimit + 1} {
			go func() { _, _ = o.Append(bg, orders, make([]byte, size)) }() // all end with gate
			synctest.Wait()
		}
		go func() { _, abandoned = o.Append(canceled, events, make([]byte, groupLimit/2)) }() // ends with cancel
		synctest.Wait()
		cancel()
		synctest.Wait()
		require.Equal(t, context.Canceled, abandoned, "it has no sequence yet")
		close(gate)
		synctest.Wait()
		require.NoError(t, o.Close())
		appends := map[int]int{}
		for _, e := range h.synced {
			appends[e.Appends]++
		}
		require.Equal(t, map[int]int{1: 3, 2: 1}, appends)
		require.Len(t, o.Streams(), 1)
	})
}
