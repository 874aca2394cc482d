package pool

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// A Writer sends messages to one address. All methods are safe for concurrent use.
//
// Write queues. What has gathered is sent in order and never interleaved, by a
// goroutine, or, where messages come so fast that they fill 64 KiB in no time,
// by the Write that has filled them, as far as the socket takes it at once. When
// the connection breaks, a message of which a part may not have left this process
// is sent again, whole, on the next connection, with all that follow it. What the
// kernel had taken before is not: TCP does not tell whether the peer has read it.
// For more than that use the acked protocol.
type Writer struct {
	cfg       WriterConfig
	codec     framing.Codec
	limit     int // of a payload
	maxHeader int // an upper bound of a header's width

	ctx     context.Context    // ends when Close stops being patient
	giveUp  context.CancelFunc // ends ctx
	wake    chan struct{}      // has room for one; tells sendLoop to look again
	stopped chan struct{}      // closed at the end of sendLoop
	wg      sync.WaitGroup     // sendLoop and the watchers of its connections

	// mu guards the fields below. It is held for a copy at most, never across
	// I/O or the user's code.
	mu      sync.Mutex
	pending []byte    // whole frames that sendLoop has not taken yet
	room    sync.Cond // of mu: pending was taken, or the Writer closed
	bound   int       // of pending: BufferSize, or less for a moment
	waiting int       // Writes that wait for room
	turn    turn
	streams bool // a chunk was sent since the last tick, to a socket that Writes can write to
	notable bool // Write has to look at closed and losses
	closed  bool
	conn    net.Conn         // nil while there is none
	try     *netio.TryWriter // of conn; nil where there is none, or it is no bare socket
	reopens []chan error
	flushes []*flushWait
	queued  uint64 // bytes of frames ever queued
	settled uint64 // bytes of frames ever sent or failed
	losses  losses

	closeOnce sync.Once
	closeErr  error

	// The rest belongs to whoever has the turn.
	_        [64]byte // keeps its writes off the cache lines of the above
	batch    []byte   // whole frames on their way
	unsent   int      // batch[unsent:] is not known to be sent, and begins a frame
	partly   int      // bytes behind unsent that this connection has taken, less than a frame
	ticks    *time.Timer
	attempts int // to connect, since the last progress
	backoff  backoff.BackOff
	openedAt time.Time
	lastErr  error // why there is no connection
	failures failureQueue
}

// flushWait is a Flush that waits until settled has reached target.
type flushWait struct {
	target uint64
	done   chan struct{}
}

// DialTCP connects to cfg.Address and returns a Writer for it. It makes one
// attempt; only a connection that breaks later is retried.
func DialTCP(cfg WriterConfig) (*Writer, error) {
	return dialWriter(context.Background(), cfg)
}

func dialWriter(ctx context.Context, cfg WriterConfig) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	codec, err := codecOf("WriterConfig", cfg.Codec, cfg.MaxMessageSize)
	if err != nil {
		return nil, err
	}
	widest, err := codec.AppendHeader(nil, codec.MaxLength())
	if err != nil {
		return nil, configError("WriterConfig.Codec", "%w", err)
	}
	w := &Writer{
		lastErr: errPeerClosed, // until there is something more precise
		cfg:     cfg, codec: codec, limit: codec.MaxLength(), maxHeader: len(widest),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		backoff: cfg.Retry.BackOff(), bound: cfg.BufferSize, ticks: time.NewTimer(tick),
	}
	w.room.L = &w.mu
	w.failures.init(w)
	conn, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	w.ctx, w.giveUp = context.WithCancel(context.Background())
	w.adopt(conn)
	w.wg.Add(1)
	go w.sendLoop() // ends when Close was called and nothing is left to send, or Close gave up
	return w, nil
}

// Write queues one message and returns len(data), without waiting for the
// network unless the buffer is full: then it blocks until there is room. data
// is the caller's again when it returns. It is sent at once, or, in the midst of
// many, when 64 KiB have gathered or a millisecond has passed.
//
// On an error nothing of data was queued and 0 is returned: a
// *framing.LengthError for a message over the limit, ErrClosed, or, without a
// failure handler, the *FailedError for messages that were accepted before; it
// is returned once, and the Writer goes on after it.
func (w *Writer) Write(data []byte) (int, error) {
	if len(data) > w.limit {
		return 0, &framing.LengthError{Length: uint64(len(data)), Limit: w.limit}
	}
	most := w.maxHeader + len(data)
	w.lock()
	if w.notable || (len(w.pending)+most > w.bound && len(w.pending) > 0) {
		if err := w.awaitRoom(most); err != nil {
			w.mu.Unlock()
			return 0, err
		}
	}
	if err := w.queue(data, most); err != nil {
		w.mu.Unlock()
		return 0, err
	}
	switch {
	case w.turn == resting:
		w.handBack()
	case w.turn == writing && len(w.pending) >= filledChunk:
		w.sendChunk()
	}
	w.mu.Unlock()
	return len(data), nil
}

// queue appends a frame. It wants mu and room for most bytes.
func (w *Writer) queue(data []byte, most int) error {
	if cap(w.pending)-len(w.pending) < most {
		w.pending = growBuffer(w.pending, most, w.cfg.BufferSize)
	}
	before := len(w.pending)
	framed, err := w.codec.AppendHeader(w.pending, len(data))
	if err != nil {
		return err
	}
	w.pending = append(framed, data...)
	w.queued += uint64(len(w.pending) - before)
	return nil
}

// growBuffer doubles buf until need more bytes fit, within limit unless one
// message alone is larger.
func growBuffer(buf []byte, need, limit int) []byte {
	const first = 4 << 10
	size := min(max(2*cap(buf), first), limit)
	size = max(size, len(buf)+need)
	return slices.Grow(buf, size-len(buf))
}

// awaitRoom is the slow path of Write. It wants mu, which it gives away while
// it waits.
func (w *Writer) awaitRoom(most int) error {
	for {
		switch {
		case w.closed:
			return ErrClosed
		case w.losses.unreported() > 0:
			return w.takeLosses(w.losses.count)
		case len(w.pending) == 0 || len(w.pending)+most <= w.bound:
			return nil
		}
		w.waiting++
		if w.turn == writing { // a large message, or a small buffer: no chunk will be filled
			w.handBack()
		}
		w.room.Wait()
		w.waiting--
	}
}

// Flush waits until every message that was queued before it has been written
// to the socket or has failed, and returns a *FailedError for the failed ones.
// A nil means that the kernel has them all, not that the peer does.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	lostBefore := w.losses.count
	if w.settled < w.queued {
		wait := &flushWait{target: w.queued, done: make(chan struct{})}
		w.flushes = append(w.flushes, wait)
		w.wakeUp()
		w.mu.Unlock()
		var err error
		select {
		case <-wait.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
		w.mu.Lock()
		if err != nil {
			w.flushes = slices.DeleteFunc(w.flushes, func(f *flushWait) bool { return f == wait })
			return err
		}
	}
	return w.takeLosses(lostBefore)
}

// Reopen closes the connection and opens a new one, in one attempt, whose error
// it returns. Messages that wait are sent on the new connection; a message that
// the old one had taken only in part is sent again. After an error the next
// Write, or what is pending, tries again as after any loss of the connection.
func (w *Writer) Reopen() error {
	done := make(chan error, 1)
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	old := w.detach()
	w.reopens = append(w.reopens, done)
	w.mu.Unlock()
	if old != nil {
		netio.CloseNow(old)
	}
	w.wakeUp()
	return <-done
}

// Close refuses further messages, sends what is queued for up to CloseTimeout,
// and closes the connection. What could not be sent goes to the failure handler
// and is reported as a *FailedError; ErrCloseTimeout says that the handler is
// still busy. Later and concurrent calls wait for the first and return the same.
func (w *Writer) Close() error {
	w.closeOnce.Do(func() { w.closeErr = w.shutDown() })
	return w.closeErr
}

func (w *Writer) shutDown() error {
	w.mu.Lock()
	lostBefore := w.losses.count
	w.closed, w.notable = true, true
	w.room.Broadcast()
	w.mu.Unlock()
	w.wakeUp()

	patience := time.NewTimer(w.cfg.CloseTimeout)
	defer patience.Stop()
	select {
	case <-w.stopped:
	case <-patience.C:
		w.breakConnection()
	}
	w.wg.Wait()
	w.giveUp()
	return w.closeResult(lostBefore)
}

// breakConnection ends whatever sendLoop waits for.
func (w *Writer) breakConnection() {
	w.giveUp()
	w.mu.Lock()
	conn := w.conn
	w.mu.Unlock()
	if conn != nil {
		netio.CloseNow(conn)
	}
}

func (w *Writer) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // it will look anyway
	}
}
