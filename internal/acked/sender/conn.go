package sender

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

const (
	flushBytes = 128 << 10              // about what one write gathers
	idleCredit = 250 * time.Millisecond // a stream that is idle for so long gives its credit back

	// largestSent is the largest message that is ever sent, in bytes: the peer says how large they may be, also those
	// that a store kept from a time when this side's own limit was higher.
	largestSent = 1 << 30
	// finishTimeout bounds the clean end of a connection.
	finishTimeout = 500 * time.Millisecond
	longestWait   = 10 * time.Second // between attempts to connect, where the BackOff has no answer
)

// runLocked has the Sender connect unless it does, or there is nothing to deliver. The caller must hold mu.
func (s *Sender) runLocked() {
	if s.running || s.closed || !s.neededLocked() {
		return
	}
	s.startLocked()
}

func (s *Sender) startLocked() {
	s.running = true
	s.noteStateLocked()
	s.wg.Go(s.run) // ends with the connection, or when there is none; Close waits for it
}

// run makes one connection, and takes what the peer sends until that ends. If there are messages that are not settled,
// it has the next one made after a while.
func (s *Sender) run() {
	if s.backoff == nil {
		s.backoff = netio.GuardedBackOff(s.cfg.Backoff, longestWait)
	}
	began := time.Now()
	conn, token, err := s.dial()
	s.cfg.Hooks.Dialed(hooks.Dialed{Address: s.cfg.Address, Took: time.Since(began), Err: err})
	if err == nil {
		welcomed, connected := false, time.Now()
		err = s.serve(conn, token, func() {
			welcomed = true
			s.backoff.Reset()
			s.logConnected()
			s.cfg.Hooks.Connected(hooks.Connected{Address: s.cfg.Address, Took: time.Since(began)})
		})
		s.noteAddress(conn, welcomed)
		s.cfg.Hooks.Lost(hooks.Lost{Address: s.cfg.Address, Welcomed: welcomed, Lasted: time.Since(connected), Err: err})
	}
	if s.ctx.Err() != nil {
		return
	}
	s.disconnected(err)
	delay := nextDelay(s.backoff)
	s.logLost(err, delay)
	s.pauseFor(delay)
}

// pauseFor has the next connection made after a while. No goroutine waits for that: many addresses may be away for
// long.
func (s *Sender) pauseFor(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.pause = time.AfterFunc(delay, s.resume) // release stops it
	}
}

// resume starts run again at the end of a pause, if there still has to be a connection.
func (s *Sender) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pause = nil
	if !s.closed && s.neededLocked() {
		s.startLocked()
		return
	}
	s.running = false
	s.noteStateLocked()
}

// serve talks to the peer until the connection ends, and returns why it ended.
func (s *Sender) serve(conn net.Conn, token []byte, welcomed func()) error {
	codec, err := session.NewCodec(s.cfg.MaxMessageSize)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	unlimited, err := session.NewCodec(largestSent)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	if !s.connect(conn, session.Encoder{Codec: unlimited, Checksum: s.cfg.TLS == nil}, token) {
		return conn.Close()
	}
	s.flusher.Kick()

	err = s.read(conn, framing.NewReader(conn, codec), welcomed)
	closeErr := conn.Close()
	s.disconnect()
	// net.ErrClosed: a failed write or Tick has closed the connection.
	if errors.Is(err, io.EOF) || closeErr == nil || errors.Is(closeErr, net.ErrClosed) {
		return err
	}
	return errors.Join(err, closeErr)
}

// connect makes conn the connection that flush writes to. It returns false if the Sender is closed.
func (s *Sender) connect(conn net.Conn, enc session.Encoder, token []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conn, s.enc = conn, enc
	s.client.SetToken(token)
	s.client.Connect(enc, time.Now())
	s.failing = false
	s.noteStateLocked()
	return true
}

func (s *Sender) disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.givenUp = nil, nil
	s.client.Disconnect()
	s.checkLocked()
	s.noteStateLocked()
}

// flush writes all that may be sent. The flusher calls it.
func (s *Sender) flush() {
	for {
		s.mu.Lock()
		conn, enc := s.conn, s.enc
		if conn == nil {
			s.runLocked()
		}
		if conn == nil || conn == s.givenUp {
			s.mu.Unlock()
			return
		}
		control, segments, more := s.client.Output(s.segments[:0], flushBytes)
		untold := s.client.Untold() // of messages that are too large for the peer
		s.mu.Unlock()
		if untold {
			s.reporter.Kick()
		}
		if len(control) == 0 && len(segments) == 0 {
			return
		}
		err := s.write(conn, enc, control, segments)
		s.noteSent(segments, err)
		clear(segments)
		s.segments = segments
		if err != nil {
			s.giveUp(conn, err)
			return
		}
		if !more {
			return
		}
	}
}

// giveUp ends a connection to which a frame may be half written: nothing else is written, and serve returns. If the
// peer has reset it, what the peer had written before is read first: a process that ends has written its acks, and
// without them what it has handled would come again. On a socket that takes no time.
func (s *Sender) giveUp(conn net.Conn, err error) {
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		_ = conn.Close()
		return
	}
	s.mu.Lock()
	if s.conn == conn {
		s.givenUp = conn
	}
	s.mu.Unlock()
	time.AfterFunc(finishTimeout, func() { netio.CloseNow(conn) })
}

// largeBody is the size from which on a body is written from where it is. Below it a copy costs less.
const largeBody = 16 << 10

// write puts the frames of control and segments together and writes them.
func (s *Sender) write(conn net.Conn, enc session.Encoder, control []byte, segments []session.Segment) (err error) {
	// A Sender keeps no buffer of its own: there may be thousands, and one that was just used is in a cache.
	buf := buffers.Get(sizeToWrite(control, segments))
	defer buffers.Put(buf)
	out, from := append(buf, control...), 0
	parts := s.parts[:0]
	for _, seg := range segments {
		if len(seg.Body) < largeBody {
			if out, err = enc.AppendPublish(out, seg); err != nil {
				return err
			}
			continue
		}
		var at int
		if out, at, err = enc.AppendAround(out, seg); err != nil {
			return err
		}
		parts = append(parts, out[from:at], seg.Body)
		from = at
	}
	if len(parts) == 0 {
		return netio.Write(conn, out, s.cfg.WriteTimeout)
	}
	parts = append(parts, out[from:])
	s.parts = parts
	err = netio.WriteBuffers(conn, &parts, s.cfg.WriteTimeout)
	clear(s.parts)
	return err
}

// sizeToWrite bounds what write puts together: everything but the large bodies.
func sizeToWrite(control []byte, segments []session.Segment) int {
	size := len(control)
	for _, seg := range segments {
		if size += session.FrameOverhead; len(seg.Body) < largeBody {
			size += len(seg.Body)
		}
	}
	return size
}

// read takes the peer's frames until the connection ends.
func (s *Sender) read(conn net.Conn, r *framing.Reader, welcomed func()) error {
	if err := conn.SetReadDeadline(time.Now().Add(s.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	established := false
	for {
		payload, err := r.Next()
		if err == nil {
			payload, err = s.enc.Verify(payload)
		}
		if err != nil && !established {
			return notGreeted(err)
		}
		if err != nil {
			return err
		}
		got, err := s.receive(payload)
		if len(got.settled) > 0 {
			s.noteSettled(got.settled)
		}
		if got.untold { // also where the frame ends the connection
			s.ReportRefused()
		}
		if err != nil {
			return err
		}
		if got.established && !established {
			established = true
			welcomed()
			if err := conn.SetReadDeadline(time.Time{}); err != nil { // from here on Tick ends a silent connection
				return err
			}
		}
		if got.due {
			s.flusher.Kick()
		}
	}
}

// received is what follows from a frame of the peer, for read to do without the lock.
type received struct {
	established bool                 // the peer has welcomed the connection
	untold      bool                 // ReportRefused has something to tell
	due         bool                 // there is something to write
	settled     []session.SettledRun // for the hooks
}

// receive takes one frame.
func (s *Sender) receive(payload []byte) (received, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.client.Receive(payload, time.Now())
	got := received{established: s.client.Established(), untold: s.client.Untold(), due: s.client.Due()}
	if got.established && err == nil {
		s.unreachable, s.refusal = nil, nil
	}
	if s.cfg.Hooks.WatchesSettled() {
		got.settled = s.client.SettledRuns()
	}
	s.checkLocked()
	s.noteStateLocked()
	return got, err
}

// ReportRefused tells the owners of messages that were refused or settled, and returns when all that was known when it
// was called is told.
func (s *Sender) ReportRefused() {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	refused, owners, events := s.untold()
	for _, r := range refused {
		s.report(r, owners)
	}
	for _, e := range events {
		e.deliver()
	}
}

// untold takes what there is to report.
func (s *Sender) untold() ([]session.Refused, map[any]func(session.Refused) bool, []streamEvents) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.Refused(), s.onRefused, s.streamEventsLocked()
}

// finish writes what is left to write, says that nothing more will come, and waits until the peer has closed the
// connection, which says that it has read everything.
func (s *Sender) finish(conn net.Conn) {
	timer := time.AfterFunc(finishTimeout, func() { netio.CloseNow(conn) })
	defer timer.Stop()
	s.flusher.Kick()
	s.flusher.Close()
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		s.wg.Wait() // run ends with the connection
	}
}

// report logs a refused message and calls what its owners have set, or Config.Refused where none of them answers for it.
func (s *Sender) report(r session.Refused, owners map[any]func(session.Refused) bool) {
	if !r.Ephemeral { // else its publisher logs what became of it
		s.cfg.Logger.Error("Message refused by the peer", r.Err, watermill.LogFields{
			"provider": netio.Provider, "address": s.cfg.Target.Address, "topic": r.Topic, "sequence": r.Sequence,
		})
	}
	s.noteRejected(r)
	answered := false
	for _, f := range owners {
		answered = f(r) || answered
	}
	if !answered && s.cfg.Refused != nil {
		s.cfg.Refused(r)
	}
}
