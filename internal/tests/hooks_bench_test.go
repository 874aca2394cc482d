package tests

import (
	"os"
	"sync/atomic"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// benchHooks are the hooks of the benchmarks: one that watches everything, with HOOKS=1, otherwise none.
func benchHooks() []hooks.Hook {
	if os.Getenv("HOOKS") == "" {
		return nil
	}
	return []hooks.Hook{new(counting)}
}

// counting counts what it is told.
type counting struct{ events, messages, bytes atomic.Uint64 }

func (c *counting) count(messages, bytes int) {
	c.events.Add(1)
	c.messages.Add(uint64(messages))
	c.bytes.Add(uint64(bytes))
}

func (c *counting) OnDialed(hooks.Dialed)             { c.count(0, 0) }
func (c *counting) OnConnected(hooks.Connected)       { c.count(0, 0) }
func (c *counting) OnLost(hooks.Lost)                 { c.count(0, 0) }
func (c *counting) OnAccepted(hooks.Accepted)         { c.count(0, 0) }
func (c *counting) OnRefused(hooks.Refused)           { c.count(0, 0) }
func (c *counting) OnMoved(hooks.Moved)               { c.count(0, 0) }
func (c *counting) OnResolved(hooks.Resolved)         { c.count(0, 0) }
func (c *counting) OnForgotten(hooks.Forgotten)       { c.count(0, 0) }
func (c *counting) OnSent(e hooks.Sent)               { c.count(e.Messages, e.Bytes) }
func (c *counting) OnReceived(e hooks.Received)       { c.count(e.Messages, e.Bytes) }
func (c *counting) OnDuplicate(e hooks.Duplicate)     { c.count(e.Messages, 0) }
func (c *counting) OnSettled(e hooks.Settled)         { c.count(e.Messages, e.Bytes) }
func (c *counting) OnHandled(e hooks.Handled)         { c.count(e.Messages, e.Bytes) }
func (c *counting) OnWindowFull(hooks.WindowFull)     { c.count(0, 0) }
func (c *counting) OnRedelivered(hooks.Redelivered)   { c.count(1, 0) }
func (c *counting) OnDeadLettered(hooks.DeadLettered) { c.count(1, 0) }
func (c *counting) OnRejected(hooks.Rejected)         { c.count(1, 0) }
