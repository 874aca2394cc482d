package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// discardLimit bounds how many bytes a Writer reads from a peer in order to notice its end. BuffStreams listeners never
// send.
const discardLimit = 64 << 10

// Reopen closes the connection and opens another, in one attempt, whose error it returns; after Close that is
// ErrClosed. Messages that wait are sent on the new connection, as after any loss of the connection. After an error the
// next Write, or messages that wait, make the Writer try again.
func (w *Writer) Reopen() error {
	done := make(chan error, 1) // never blocks the sender
	old, err := w.addReopen(done)
	if err != nil {
		return err
	}
	if old != nil {
		netio.CloseNow(old.conn)
		w.tellLost(old, net.ErrClosed)
	}
	w.wakeUp()
	return <-done
}

// addReopen leaves the Writer without a connection and returns the one it had.
func (w *Writer) addReopen(done chan error) (*outbound, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrClosed
	}
	w.reopens = append(w.reopens, done)
	return w.detachLocked(), nil
}

// connect returns the connection, or opens one in as many attempts as Retry allows. An error means that the messages
// that wait have failed. It returns neither if a Reopen failed and nothing waits.
func (w *Writer) connect() (*outbound, error) {
	if conn := w.current(); conn != nil {
		return conn, nil
	}
	// A peer that accepts connections and closes them at once must not be dialed in a tight loop.
	delayed := w.attempts > 0 || time.Since(w.openedAt) < w.cfg.Retry.InitialInterval
	for {
		if w.exhausted() || (delayed && !w.pause()) {
			w.restartAttempts()
			return nil, w.lastErr
		}
		if w.ctx.Err() != nil {
			return nil, fmt.Errorf("%w before the messages could be sent: %w", ErrClosed, w.lastErr)
		}
		conn, err := w.dial(w.ctx)
		w.attempts++
		if err == nil {
			out := w.adopt(conn)
			w.cfg.Logger.Info("Reconnected", w.fields())
			return out, nil
		}
		w.lastErr = err
		w.answerReopens(err)
		if !w.hasUnsent() {
			w.restartAttempts()
			return nil, nil
		}
		delayed = true
	}
}

// exhausted tells whether to give up. As long as earlier failures are not handed over there is no room for more of
// them, and the attempts go on.
func (w *Writer) exhausted() bool {
	limit := w.cfg.Retry.MaxAttempts
	return limit != RetryForever && w.attempts >= limit && w.failures.empty()
}

func (w *Writer) restartAttempts() {
	w.attempts = 0
	w.backoff.Reset()
}

// pause waits before the next attempt; Reopen, and Close when it gives up, end it. It returns false if the BackOff
// stops the attempts.
func (w *Writer) pause() bool {
	if w.reopenWaits() {
		return true
	}
	delay := w.backoff.NextBackOff()
	if delay == backoff.Stop {
		if w.failures.empty() {
			return false
		}
		delay = w.cfg.Retry.MaxInterval
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-w.ctx.Done():
			return true
		case <-w.wake:
			if w.reopenWaits() {
				return true
			}
		}
	}
}

func (w *Writer) reopenWaits() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reopens) > 0
}

func (w *Writer) hasUnsent() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsent < len(w.batch) || len(w.pending) > 0
}

func (w *Writer) answerReopens(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answerReopensLocked(err)
}

func (w *Writer) answerReopensLocked(err error) {
	for _, done := range w.reopens {
		done <- err // has room for the one answer
	}
	w.reopens = nil
}

// dial makes one attempt, and tells the hooks of it.
func (w *Writer) dial(ctx context.Context) (net.Conn, error) {
	began := time.Now()
	conn, err := w.attempt(ctx)
	w.tellDialed(ctx, time.Since(began), err)
	return conn, err
}

func (w *Writer) attempt(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DialTimeout)
	defer cancel()
	conn, err := netio.GuardedDial(netio.Dial(w.cfg.Dial))(ctx, w.cfg.Network, w.cfg.Address)
	if err == nil && w.cfg.TLSConfig != nil {
		conn, err = clientHandshake(ctx, conn, w.cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("pool: dial %s: %w", netio.Quote(w.cfg.Address), err)
	}
	return conn, nil
}

func clientHandshake(ctx context.Context, conn net.Conn, cfg WriterConfig) (net.Conn, error) {
	config, err := netio.ClientTLS(cfg.TLSConfig, cfg.Address)
	if err != nil {
		_ = conn.Close() // the first error says more
		return nil, err
	}
	if cfg.WriteTimeout > 0 {
		conn = netio.Patient(conn, cfg.WriteTimeout)
	}
	secured := tls.Client(conn, config)
	if err := netio.Handshake(ctx, secured); err != nil {
		_ = conn.Close() // the handshake's error says more
		return nil, err
	}
	return secured, nil
}

// adopt makes conn the connection, which answers every Reopen, and starts its watcher. The caller must be the write
// owner.
func (w *Writer) adopt(conn net.Conn) *outbound {
	w.openedAt, w.partial = time.Now(), 0
	out := &outbound{conn: conn, try: netio.NewTryWriter(conn), since: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = out
	w.answerReopensLocked(nil)
	w.wg.Go(func() { w.watch(out) }) // ends with conn, which sendLoop closes at the latest; Close waits for it
	return out
}

// watch notices the end of the connection while nothing is written, so that the first message after a restart of the
// peer is not written to a dead socket.
func (w *Writer) watch(out *outbound) {
	var scrap [512]byte
	for discarded := 0; discarded < discardLimit; {
		n, err := out.conn.Read(scrap[:])
		if n > 0 && discarded == 0 {
			w.cfg.Logger.Info("Peer sends on a connection that is only written to, discarding it", w.fields())
		}
		discarded += n
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errPeerClosed
			}
			w.lost(out, err)
			return
		}
	}
}

// lost closes a connection that broke, and logs that unless the Writer itself had closed it before.
func (w *Writer) lost(out *outbound, err error) {
	broke := w.detachIf(out)
	netio.CloseNow(out.conn)
	if broke && !errors.Is(err, net.ErrClosed) {
		w.cfg.Logger.Info("Connection lost, reconnecting when there is something to send",
			w.fields().Add(watermill.LogFields{"err": err}))
	}
	w.tellLost(out, err)
}

// detachIf leaves the Writer without a connection if it is out, and tells whether it was.
func (w *Writer) detachIf(out *outbound) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn == out && w.detachLocked() != nil
}

func (w *Writer) detach() *outbound {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.detachLocked()
}

// detachLocked leaves the Writer without a connection, and returns the one that it had.
func (w *Writer) detachLocked() (out *outbound) {
	out, w.conn, w.streaming = w.conn, nil, false
	return out
}

func (w *Writer) fields() watermill.LogFields {
	return watermill.LogFields{"provider": netio.Provider, "address": netio.Quote(w.cfg.Address)}
}
