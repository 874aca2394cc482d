package pool

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// A Writer sends messages to one address, in the order of the Write calls. All methods are safe for concurrent use.
//
// Write queues a message; a goroutine of the Writer sends what has gathered. When the connection breaks, messages that
// may not have left this process completely are sent again on the next connection, each from its start. What the kernel
// had taken is not: TCP does not say whether the peer has read it.
type Writer struct {
	// Immutable.
	cfg       WriterConfig
	codec     framing.Codec
	hooks     *hook.Set          // nil: there are none
	limit     int                // of a payload, in bytes
	maxHeader int                // no header is wider, in bytes
	ctx       context.Context    // done when Close gives up
	giveUp    context.CancelFunc // cancels ctx
	wake      chan struct{}      // has room for one; makes sendLoop look for work
	wg        sync.WaitGroup     // sendLoop and the watchers of its connections

	// mu guards the fields from here to losses. It is held for one copy at most, never across I/O or user code.
	mu           sync.Mutex
	pending      []byte    // whole frames behind batch
	pendingLimit int       // BufferSize, or less while a Write sends
	room         sync.Cond // of mu: pending was taken, or the Writer closed
	waiters      int       // Writes that wait for room
	owner        writeOwner
	streaming    bool // a full chunk was sent since the last tick, to a socket that Writes can write to
	closed       bool
	conn         *outbound // nil while there is none
	reopens      []chan error
	flushes      []*flushWait
	queued       uint64 // bytes of frames ever queued
	settled      uint64 // bytes of frames ever sent or failed
	losses       losses

	ending ending

	// The write owner alone uses the rest; see writeOwner.
	batch    []byte // whole frames to send
	unsent   int    // batch[unsent:] is not known to be sent, and begins with a frame
	partial  int    // bytes behind unsent that this connection has taken, less than a frame
	ticks    *time.Timer
	attempts int // to connect, since the last progress
	backoff  backoff.BackOff
	openedAt time.Time
	lastErr  error // why there is no connection
	failures failureQueue
}

// outbound is a connection of a Writer.
type outbound struct {
	conn net.Conn
	try  *netio.TryWriter // nil: conn is not a bare socket, and only sendLoop writes to it

	since time.Time
	told  atomic.Bool // hooks know of its end
}

// DialTCP connects to cfg.Address and returns a Writer for it. It makes one attempt, bounded by DialTimeout, and
// returns its error; only a connection that breaks later is retried.
func DialTCP(cfg WriterConfig) (*Writer, error) {
	return dialWriter(context.Background(), cfg)
}

func dialWriter(ctx context.Context, cfg WriterConfig) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	codec, err := resolveCodec("WriterConfig", cfg.Codec, cfg.MaxMessageSize)
	if err != nil {
		return nil, err
	}
	widest, err := codec.AppendHeader(nil, codec.MaxLength())
	if err != nil {
		return nil, configError("WriterConfig.Codec", "%w", err)
	}
	w := &Writer{
		cfg: cfg, codec: codec, hooks: hook.NewSet(cfg.Hooks, cfg.Logger), limit: codec.MaxLength(), maxHeader: len(widest),
		wake: make(chan struct{}, 1), pendingLimit: cfg.BufferSize, ticks: time.NewTimer(tick),
		backoff:  netio.GuardedBackOff(cfg.Retry.BackOff, cfg.Retry.MaxInterval),
		losses:   losses{handled: cfg.OnFailure != nil || cfg.Failures != nil},
		failures: failureQueue{cfg: cfg, codec: codec, abandon: make(chan struct{})},
		lastErr:  errPeerClosed, // until there is something more precise
	}
	w.room.L = &w.mu
	conn, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	w.ctx, w.giveUp = context.WithCancel(context.Background())
	w.adopt(conn)
	w.wg.Go(w.sendLoop) // ends when Close was called and nothing is left to send, or Close gave up; Close waits for it
	return w, nil
}

// Write queues one message and returns len(data). It does not wait for the network, but blocks while the buffer is
// full. The caller may use data again when Write returns. The message is sent at once, or, among many, when 64 KiB have
// gathered or a millisecond has passed.
//
// On an error it has queued nothing and returns 0. The error is a *framing.LengthError for a message over the limit;
// ErrClosed; or, without OnFailure and Failures, a *FailedError for messages that were accepted before. That is
// returned once, and the next Write goes on.
func (w *Writer) Write(data []byte) (int, error) {
	return w.WriteContext(context.Background(), data)
}

// WriteContext is Write, but waits for room in the buffer until ctx is done at most: it returns the cause of ctx then,
// and has queued nothing. A message for which there is room is queued whatever the state of ctx.
func (w *Writer) WriteContext(ctx context.Context, data []byte) (int, error) {
	if len(data) > w.limit {
		return 0, &framing.LengthError{Length: uint64(len(data)), Limit: w.limit}
	}
	conn, err := w.enqueue(ctx, data)
	if err != nil {
		return 0, err
	}
	if conn != nil {
		w.sendChunk(conn)
	}
	return len(data), nil
}

// enqueue waits for room and appends a frame to pending. It returns a connection if that has filled a chunk: the caller
// is the write owner then, and must call sendChunk.
func (w *Writer) enqueue(ctx context.Context, data []byte) (*outbound, error) {
	most := w.maxHeader + len(data)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.closed:
			return nil, ErrClosed
		case w.losses.unreported() > 0:
			return nil, w.takeLossesLocked(w.losses.count)
		}
		if len(w.pending)+most <= w.pendingLimit || len(w.pending) == 0 {
			break
		}
		if ctx.Err() != nil {
			w.room.Signal() // this Write may have been the one that was woken
			return nil, context.Cause(ctx)
		}
		w.awaitRoom(ctx)
	}
	if err := w.appendLocked(data, most); err != nil {
		return nil, err
	}
	switch {
	case w.owner == ownerNone:
		w.wakeLoopLocked()
	case w.owner == ownerFiller && len(w.pending) >= filledChunk:
		return w.claimChunkLocked(), nil
	}
	return nil, nil
}

// awaitRoom waits on room, which ctx wakes as well. The caller must hold mu.
func (w *Writer) awaitRoom(ctx context.Context) {
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.room.Broadcast()
		})
		defer stop()
	}
	w.waiters++
	if w.owner == ownerFiller { // a large message, or a small buffer: no chunk will be filled
		w.wakeLoopLocked()
	}
	w.room.Wait()
	w.waiters--
}

// appendLocked appends a frame of at most the given size to pending.
func (w *Writer) appendLocked(data []byte, most int) error {
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

// growBuffer doubles buf until need more bytes fit, within limit unless one message alone is larger.
func growBuffer(buf []byte, need, limit int) []byte {
	const first = 4 << 10
	size := min(max(2*cap(buf), first), limit)
	size = max(size, len(buf)+need)
	return slices.Grow(buf, size-len(buf))
}

// Close refuses further messages, sends the queued ones for up to CloseTimeout, and closes the connection. Messages
// that could not be sent go to OnFailure or Failures, and are reported as a *FailedError; ErrCloseTimeout says that
// their receiver was still busy after another CloseTimeout. Later and concurrent calls wait for the first and return
// the same.
func (w *Writer) Close() error {
	return w.ending.run(w.shutDown)
}

func (w *Writer) shutDown() error {
	lostBefore := w.refuseWrites()
	defer time.AfterFunc(w.cfg.CloseTimeout, w.abort).Stop()
	w.wg.Wait()
	w.giveUp() // also a hook that Reopen waits for
	return w.closeResult(lostBefore)
}

// abort ends what Close waits for: writes, attempts to connect, and hooks that do not return.
func (w *Writer) abort() {
	w.giveUp()
	if conn := w.current(); conn != nil {
		netio.CloseNow(conn.conn) // ends a write of sendLoop
	}
}

// refuseWrites makes sendLoop end when all is sent. It returns how many messages have failed by now.
func (w *Writer) refuseWrites() (lost int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.room.Broadcast()
	w.wakeUp()
	return w.losses.count
}

func (w *Writer) current() *outbound {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn
}

func (w *Writer) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // sendLoop has not looked since the last one
	}
}
