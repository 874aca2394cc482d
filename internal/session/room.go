package session

import "time"

// HasRoom tells whether a small message can be sent without waiting: the window has room, no caller waits for it, and no
// message waits for credit.
func (o *Outbound) HasRoom() bool {
	return o.fits(1, 1) && len(o.line) == 0 && !(o.state == open && o.wantSent && o.hasUnsent())
}

// Progress returns the lowest sequence that is not settled, and the one after the last.
func (o *Outbound) Progress() (head, tail uint64) {
	head, _ = o.settled.Hole(1)
	return head, o.next
}

// ShortenSilence makes PingAfter and DeadAfter less, unless they are less already.
func (c *Client) ShortenSilence(ping, dead time.Duration) {
	c.cfg.PingAfter, c.cfg.DeadAfter = min(c.cfg.PingAfter, ping), min(c.cfg.DeadAfter, dead)
}
