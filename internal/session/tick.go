package session

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Tick does what is due at now: it fails the waiters whose deadline has passed with what timeout returns, returns the
// credit of idle streams and ends those that are idle for long, asks why others get none, and pings a silent peer. The
// caller must call it a few times a second. An error ends the connection.
func (c *Client) Tick(now time.Time, timeout func(*Outbound) error) error {
	c.now = now.UnixNano()
	idleTick := now.Sub(c.lastIdleTick) >= c.cfg.IdleCredit
	if idleTick {
		c.lastIdleTick = now
	}
	c.busy, c.asks, c.longest = len(c.freeLater.buffers) > 0, 0, longest{}
	c.tickMoves(now)
	for _, o := range c.inOrder() {
		c.busy = c.busy || o.busy()
		o.expire(now, timeout)
		o.noteStuck(now)
		c.longest.add(o)
		if o.ephemeral {
			c.tickAbsent(o, now)
		}
		if o.state == unopened && !now.Before(o.openAfter) {
			o.openAfter = time.Time{}
			c.schedule(o)
		}
		if idleTick && o.state == open {
			c.tickIdle(o, now)
		}
		c.tickAsk(o, now)
		if o.leaving || o.revoking {
			c.tickLeaving(o, now)
		}
	}
	if c.phase == disconnected {
		return nil
	}
	if c.unsendable != nil {
		return c.unsendable
	}
	return c.tickSilence(now)
}

// tickIdle returns the credit of a stream that sent nothing since the last call, and ends the stream when it was idle
// for ForgetAfter.
func (c *Client) tickIdle(o *Outbound, now time.Time) {
	if messages, bytes := o.credit.available(); !o.sentSinceTick && messages+bytes > 0 && !o.hasUnsent() {
		c.sendWant(o, 0, 0, 0)
	}
	if o.fetched == nil && c.cfg.ForgetAfter > 0 && o.idleFor(now) >= c.cfg.ForgetAfter {
		c.forget(o)
	}
	o.sentSinceTick = false
}

// tickSilence pings if either side is silent, as the peer ends a connection too from which it hears nothing.
func (c *Client) tickSilence(now time.Time) error {
	if now.Sub(c.lastHeard) >= c.cfg.DeadAfter {
		return ErrSilent
	}
	if c.sentSinceTick {
		c.sentSinceTick, c.lastSent = false, now
	}
	silence := max(now.Sub(c.lastHeard), now.Sub(c.lastSent))
	if silence >= c.cfg.PingAfter && c.phase >= established && now.Sub(c.lastPing) >= c.cfg.PingAfter {
		c.lastPing = now
		c.sendControl(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{}}})
	}
	return nil
}

// Busy tells whether the last Tick saw more to do than to watch for silence. While it is false, the caller may call
// Tick more rarely.
func (c *Client) Busy() bool { return c.busy }

// busy tells whether messages are unsettled, a caller waits, or credit should be returned.
func (o *Outbound) busy() bool {
	messages, bytes := o.credit.available()
	return o.sentSinceTick || o.unsettled() > 0 || o.hasWaiters() || messages+bytes > 0
}

// idleFor tells how long the stream has had no messages and no callers that wait, as far as Tick has seen.
func (o *Outbound) idleFor(now time.Time) time.Duration {
	if o.sentSinceTick || o.pending > 0 || o.hasWaiters() {
		o.idleSince = time.Time{}
		return 0
	}
	if o.idleSince.IsZero() {
		o.idleSince = now
	}
	return now.Sub(o.idleSince)
}

func (o *Outbound) hasWaiters() bool {
	return o.room != nil || len(o.line.turns) > 0 || len(o.waitReceived)+len(o.waitHandled) > 0
}

// ShortenSilence makes PingAfter and DeadAfter less, unless they are less already.
func (c *Client) ShortenSilence(ping, dead time.Duration) {
	c.cfg.PingAfter, c.cfg.DeadAfter = min(c.cfg.PingAfter, ping), min(c.cfg.DeadAfter, dead)
}
