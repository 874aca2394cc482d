package session

import "time"

// ShortenSilence makes PingAfter and DeadAfter less, unless they are less already.
func (c *Client) ShortenSilence(ping, dead time.Duration) {
	c.cfg.PingAfter, c.cfg.DeadAfter = min(c.cfg.PingAfter, ping), min(c.cfg.DeadAfter, dead)
}
