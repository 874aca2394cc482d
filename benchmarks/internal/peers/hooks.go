package peers

import (
	"sync/atomic"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// counter is a hook that counts whatever it is told, as one for metrics does.
type counter struct{ events, messages, bytes atomic.Uint64 }

func (c *counter) count(messages, bytes int) {
	c.events.Add(1)
	c.messages.Add(uint64(messages))
	c.bytes.Add(uint64(bytes))
}

func (c *counter) OnDialed(hooks.Dialed)             { c.count(0, 0) }
func (c *counter) OnConnected(hooks.Connected)       { c.count(0, 0) }
func (c *counter) OnLost(hooks.Lost)                 { c.count(0, 0) }
func (c *counter) OnAccepted(hooks.Accepted)         { c.count(0, 0) }
func (c *counter) OnRefused(hooks.Refused)           { c.count(0, 0) }
func (c *counter) OnMoved(hooks.Moved)               { c.count(0, 0) }
func (c *counter) OnAddressState(hooks.AddressState) { c.count(0, 0) }
func (c *counter) OnResolved(hooks.Resolved)         { c.count(0, 0) }
func (c *counter) OnForgotten(hooks.Forgotten)       { c.count(0, 0) }
func (c *counter) OnSent(e hooks.Sent)               { c.count(e.Messages, e.Bytes) }
func (c *counter) OnReceived(e hooks.Received)       { c.count(e.Messages, e.Bytes) }
func (c *counter) OnDuplicate(e hooks.Duplicate)     { c.count(e.Messages, 0) }
func (c *counter) OnSettled(e hooks.Settled)         { c.count(e.Messages, e.Bytes) }
func (c *counter) OnHandled(e hooks.Handled)         { c.count(e.Messages, e.Bytes) }
func (c *counter) OnWindowFull(hooks.WindowFull)     { c.count(0, 0) }
func (c *counter) OnRedelivered(hooks.Redelivered)   { c.count(1, 0) }
func (c *counter) OnDeadLettered(hooks.DeadLettered) { c.count(1, 0) }
func (c *counter) OnRejected(hooks.Rejected)         { c.count(1, 0) }
