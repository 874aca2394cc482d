package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

const (
	flushBytes = 128 << 10              // a flush gathers about so much before it writes
	idleCredit = 250 * time.Millisecond // a stream that is idle for so long gives its credit back
)

// run keeps the link connected while it has messages that are not settled.
func (l *Sender) run() {
	backoff := l.cfg.Backoff()
	for {
		if !l.awaitWork() {
			return
		}
		conn, token, err := l.dial()
		if err == nil {
			err = l.serve(conn, token, backoff.Reset)
		}
		if l.ctx.Err() != nil {
			return
		}
		l.disconnected(err)
		delay := backoff.NextBackOff()
		l.cfg.Logger.Info("Connection lost, reconnecting", watermill.LogFields{
			"provider": netio.Provider, "address": l.cfg.Target.Address, "err": netio.Sanitize(err), "delay": delay,
		})
		select {
		case <-time.After(delay):
		case <-l.ctx.Done():
			return
		}
	}
}

// awaitWork waits until there is something to deliver; it returns false when the link is closed.
func (l *Sender) awaitWork() bool {
	for {
		if l.ctx.Err() != nil {
			return false
		}
		if l.Pending() > 0 {
			return true
		}
		select {
		case <-l.work:
		case <-l.ctx.Done():
		}
	}
}

// dial connects, and fetches the token to show.
func (l *Sender) dial() (net.Conn, []byte, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	token, err := l.cfg.token(ctx)
	if err != nil {
		return nil, nil, err
	}
	conn, err := l.cfg.Dial(ctx, l.cfg.Target.Network, l.cfg.Target.Address)
	if err != nil || l.cfg.TLS == nil {
		return conn, token, err
	}
	secure := tls.Client(conn, l.cfg.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return secure, token, nil
}

// serve speaks with the peer until the connection ends, and says why it ended.
func (l *Sender) serve(conn net.Conn, token []byte, welcomed func()) error {
	codec, err := session.NewCodec(l.cfg.MaxMessageSize)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return conn.Close()
	}
	l.conn = conn
	l.enc = session.Encoder{Codec: codec, Checksum: l.cfg.TLS == nil}
	l.client.SetToken(token)
	l.client.Connect(l.enc, time.Now())
	l.mu.Unlock()
	l.flusher.Kick()

	err = l.read(conn, framing.NewReader(netio.ReadWhenReady(conn), codec), welcomed)
	closeErr := conn.Close()
	l.mu.Lock()
	l.conn = nil
	l.client.Disconnect()
	l.checkLocked()
	l.mu.Unlock()
	if errors.Is(err, io.EOF) || closeErr == nil || errors.Is(closeErr, net.ErrClosed) { // closed by whoever failed to write
		return err
	}
	return errors.Join(err, closeErr)
}

// read takes the peer's frames until the connection ends.
func (l *Sender) read(conn net.Conn, r *framing.Reader, welcomed func()) error {
	if err := conn.SetReadDeadline(time.Now().Add(l.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	established := false
	for {
		payload, err := r.Next()
		if err != nil {
			return err
		}
		if payload, err = l.enc.Verify(payload); err != nil {
			return err
		}
		l.mu.Lock()
		err = l.client.Receive(payload, time.Now())
		up := l.client.Established()
		if up && l.late != nil {
			l.established()
		}
		refused, hooks := l.client.Refused(), l.onRefused
		news, due := l.news(), l.client.Due()
		l.checkLocked()
		l.mu.Unlock()
		if err != nil {
			return err
		}
		if up && !established {
			established = true
			welcomed()
			if err := conn.SetReadDeadline(time.Time{}); err != nil { // Tick watches from here on
				return err
			}
		}
		for _, r := range refused {
			l.report(r, hooks)
		}
		for _, n := range news {
			n.deliver()
		}
		if due {
			l.flusher.Kick()
		}
	}
}

// report tells of a refused message. No lock is held.
func (l *Sender) report(r session.Refused, hooks map[any]func(session.Refused)) {
	l.cfg.Logger.Error("Message refused by the peer", r.Err, watermill.LogFields{
		"provider": netio.Provider, "address": l.cfg.Target.Address, "topic": r.Topic, "sequence": r.Sequence,
	})
	for _, f := range hooks {
		f(r)
	}
}

// flush writes all that may be sent. It is the flusher's.
func (l *Sender) flush() {
	for {
		l.mu.Lock()
		conn, enc := l.conn, l.enc
		if conn == nil {
			if l.client.Pending() > 0 {
				select {
				case l.work <- struct{}{}:
				default:
				}
			}
			l.mu.Unlock()
			return
		}
		control, segments, more := l.client.Output(l.segments[:0], flushBytes)
		l.mu.Unlock()
		if len(control) == 0 && len(segments) == 0 {
			return
		}
		err := l.write(conn, enc, control, segments)
		clear(segments)
		l.segments = segments
		if err != nil {
			_ = conn.Close() // a half-written frame ends the connection; the read loop ends with it
			return
		}
		if !more {
			return
		}
	}
}

// largeBody is the size from which on a body is written from where it is. Below it a copy costs less.
const largeBody = 16 << 10

func (l *Sender) write(conn net.Conn, enc session.Encoder, control []byte, segments []session.Segment) (err error) {
	room := buffers.Get(sizeToWrite(control, segments)) // kept by no link: there may be thousands, and a used one is in a cache
	defer buffers.Put(room)
	out, from := append(room, control...), 0
	parts := l.parts[:0]
	for _, s := range segments {
		if len(s.Body) < largeBody {
			if out, err = enc.AppendPublish(out, s); err != nil {
				return err
			}
			continue
		}
		var at int
		if out, at, err = enc.AppendAround(out, s); err != nil {
			return err
		}
		parts = append(parts, out[from:at], s.Body)
		from = at
	}
	if err = conn.SetWriteDeadline(time.Now().Add(l.cfg.WriteTimeout)); err != nil {
		return err
	}
	if len(parts) == 0 {
		_, err = conn.Write(out)
	} else {
		parts = append(parts, out[from:])
		l.parts = parts
		_, err = parts.WriteTo(conn)
		clear(l.parts)
	}
	return err
}

// sizeToWrite bounds what write puts together: all but the large bodies.
func sizeToWrite(control []byte, segments []session.Segment) int {
	size := len(control)
	for _, s := range segments {
		if size += session.FrameOverhead; len(s.Body) < largeBody {
			size += len(s.Body)
		}
	}
	return size
}
