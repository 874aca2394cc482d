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

// connection returns the present connection or opens one, with as many attempts
// as Retry allows; an error means that what is pending has failed. It returns
// neither when only a Reopen asked and it was answered.
func (w *Writer) connection() (net.Conn, error) {
	w.mu.Lock()
	conn := w.conn
	w.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	// A peer that takes connections and ends them at once must not make this spin.
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
			w.adopt(conn)
			w.cfg.Logger.Info("connection opened again", w.fields())
			return conn, nil
		}
		w.lastErr = err
		w.answerReopens(err)
		if !w.hasWork() {
			w.restartAttempts()
			return nil, nil
		}
		delayed = true
	}
}

// exhausted tells whether to give up. As long as earlier failures are not
// handed over there is no room for more of them, and the attempts go on.
func (w *Writer) exhausted() bool {
	most := w.cfg.Retry.MaxAttempts
	return most != RetryForever && w.attempts >= most && w.failures.empty()
}

func (w *Writer) restartAttempts() {
	w.attempts = 0
	w.backoff.Reset()
}

// pause waits before the next attempt; Reopen and an impatient Close end it. It
// returns false when there shall be no next attempt.
func (w *Writer) pause() bool {
	if w.reopenAsked() {
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
			if w.reopenAsked() {
				return true
			}
		}
	}
}

func (w *Writer) reopenAsked() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.reopens) > 0
}

func (w *Writer) hasWork() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsent < len(w.batch) || len(w.pending) > 0
}

func (w *Writer) answerReopens(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer(err)
}

// answer is answerReopens for who has mu. While there is a connection no Reopen waits.
func (w *Writer) answer(err error) {
	for _, done := range w.reopens {
		done <- err // has room for the one answer
	}
	w.reopens = nil
}

// dial makes one attempt.
func (w *Writer) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DialTimeout)
	defer cancel()
	conn, err := w.cfg.Dial(ctx, w.cfg.Network, w.cfg.Address)
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
		_ = conn.Close() // that error says more
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error says more
		return nil, err
	}
	return secured, nil
}

// adopt makes conn the connection, which answers every Reopen, and starts its watcher.
func (w *Writer) adopt(conn net.Conn) {
	w.openedAt, w.partly = time.Now(), 0
	w.mu.Lock()
	w.conn, w.try = conn, netio.NewTryWriter(conn)
	w.answer(nil)
	w.mu.Unlock()
	w.wg.Add(1)
	go w.watch(conn) // ends when conn is closed, which sendLoop does at the latest
}

// watch notices the end of the connection while nothing is written, so that
// the first message after a restart of the peer is not given to a dead socket.
func (w *Writer) watch(conn net.Conn) {
	defer w.wg.Done()
	var scrap [512]byte
	for discarded := 0; discarded < discardLimit; {
		n, err := conn.Read(scrap[:])
		if n > 0 && discarded == 0 {
			w.cfg.Logger.Info("the peer sends on a connection that is only written to; discarding it", w.fields())
		}
		discarded += n
		if err != nil {
			if err == io.EOF {
				err = errPeerClosed
			}
			w.lost(conn, err)
			return
		}
	}
}

// lost closes a connection that broke, and says so if it was not ended by
// ourselves before.
func (w *Writer) lost(conn net.Conn, err error) {
	ours := w.forget(conn) != nil
	netio.CloseNow(conn)
	if ours && !errors.Is(err, net.ErrClosed) {
		w.cfg.Logger.Info("connection lost; it will be opened again when there is something to send",
			w.fields().Add(watermill.LogFields{"err": err}))
	}
}

// forget makes conn, or with nil whichever there is, no longer the connection,
// and returns it if it was.
func (w *Writer) forget(conn net.Conn) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if conn != nil && conn != w.conn {
		return nil
	}
	return w.detach()
}

// detach leaves the Writer without a connection, and returns the one it had. It wants mu.
func (w *Writer) detach() (conn net.Conn) {
	conn, w.conn, w.try, w.streams = w.conn, nil, nil, false
	return conn
}

func (w *Writer) fields() watermill.LogFields {
	return watermill.LogFields{"provider": netio.Provider, "address": netio.Quote(w.cfg.Address)}
}
