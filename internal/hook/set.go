package hook

import (
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// Set is the hooks of a Manager, sorted by what they watch. Its methods call those that watch an event, with no lock
// held; a panic is logged. A nil *Set has no hooks.
type Set struct {
	logger  watermill.LoggerAdapter
	running atomic.Int64 // calls that have not returned

	dialed      []hooks.DialedHook
	connected   []hooks.ConnectedHook
	lost        []hooks.LostHook
	accepted    []hooks.AcceptedHook
	refused     []hooks.RefusedHook
	moved       []hooks.MovedHook
	states      []hooks.AddressStateHook
	resolved    []hooks.ResolvedHook
	forgotten   []hooks.ForgottenHook
	sent        []hooks.SentHook
	received    []hooks.ReceivedHook
	duplicate   []hooks.DuplicateHook
	settled     []hooks.SettledHook
	handled     []hooks.HandledHook
	windowFull  []hooks.WindowFullHook
	redelivered []hooks.RedeliveredHook
	dead        []hooks.DeadLetteredHook
	rejected    []hooks.RejectedHook
}

// NewSet sorts hooks. It returns nil if there are none.
func NewSet(all []hooks.Hook, logger watermill.LoggerAdapter) *Set {
	if len(all) == 0 {
		return nil
	}
	return &Set{
		logger: logger,
		dialed: hooks.Of[hooks.DialedHook](all), connected: hooks.Of[hooks.ConnectedHook](all), lost: hooks.Of[hooks.LostHook](all),
		accepted: hooks.Of[hooks.AcceptedHook](all), refused: hooks.Of[hooks.RefusedHook](all), moved: hooks.Of[hooks.MovedHook](all),
		states:   hooks.Of[hooks.AddressStateHook](all),
		resolved: hooks.Of[hooks.ResolvedHook](all), forgotten: hooks.Of[hooks.ForgottenHook](all),
		sent: hooks.Of[hooks.SentHook](all), received: hooks.Of[hooks.ReceivedHook](all), duplicate: hooks.Of[hooks.DuplicateHook](all),
		settled: hooks.Of[hooks.SettledHook](all), handled: hooks.Of[hooks.HandledHook](all),
		windowFull: hooks.Of[hooks.WindowFullHook](all), redelivered: hooks.Of[hooks.RedeliveredHook](all),
		dead: hooks.Of[hooks.DeadLetteredHook](all), rejected: hooks.Of[hooks.RejectedHook](all),
	}
}

// Implemented reports whether a hook implements any interface of package hooks.
func Implemented(h hooks.Hook) bool {
	switch h.(type) {
	case hooks.AddressStateHook, hooks.DialedHook, hooks.ConnectedHook, hooks.LostHook, hooks.AcceptedHook, hooks.RefusedHook, hooks.MovedHook,
		hooks.ResolvedHook, hooks.ForgottenHook, hooks.SentHook, hooks.ReceivedHook, hooks.DuplicateHook, hooks.SettledHook,
		hooks.HandledHook, hooks.WindowFullHook, hooks.RedeliveredHook, hooks.DeadLetteredHook, hooks.RejectedHook,
		hooks.OutboxAppendedHook, hooks.OutboxSyncedHook, hooks.OutboxRecoveredHook:
		return true
	}
	return false
}

// each calls a method of all hooks that watch an event.
func each[H, E any](s *Set, name string, all []H, method func(H, E), e E) {
	for _, h := range all {
		one(s, name, h, method, e)
	}
}

func one[H, E any](s *Set, name string, h H, method func(H, E), e E) {
	s.running.Add(1)
	defer func() {
		s.running.Add(-1)
		if p := recover(); p != nil {
			s.logger.Error("A hook panicked", &PanicError{name, p}, watermill.LogFields{"provider": "buffstreams"})
		}
	}()
	method(h, e)
}

// Running is the number of calls that have not returned.
func (s *Set) Running() int {
	if s == nil {
		return 0
	}
	return int(s.running.Load())
}

// WatchesSent reports whether Sent has anything to call.
func (s *Set) WatchesSent() bool { return s != nil && len(s.sent) > 0 }

// WatchesReceived reports whether Received or Duplicate have anything to call.
func (s *Set) WatchesReceived() bool { return s != nil && len(s.received)+len(s.duplicate) > 0 }

// WatchesSettled reports whether Settled has anything to call.
func (s *Set) WatchesSettled() bool { return s != nil && len(s.settled) > 0 }

// WatchesHandled reports whether Handled has anything to call.
func (s *Set) WatchesHandled() bool { return s != nil && len(s.handled) > 0 }

// WatchesWindow reports whether WindowFull has anything to call.
func (s *Set) WatchesWindow() bool { return s != nil && len(s.windowFull) > 0 }

// Dialed calls the hooks.DialedHooks.
func (s *Set) Dialed(e hooks.Dialed) {
	if s != nil {
		each(s, "OnDialed", s.dialed, hooks.DialedHook.OnDialed, e)
	}
}

// Connected calls the hooks.ConnectedHooks.
func (s *Set) Connected(e hooks.Connected) {
	if s != nil {
		each(s, "OnConnected", s.connected, hooks.ConnectedHook.OnConnected, e)
	}
}

// Lost calls the hooks.LostHooks.
func (s *Set) Lost(e hooks.Lost) {
	if s != nil {
		each(s, "OnLost", s.lost, hooks.LostHook.OnLost, e)
	}
}

// Accepted calls the hooks.AcceptedHooks.
func (s *Set) Accepted(e hooks.Accepted) {
	if s != nil {
		each(s, "OnAccepted", s.accepted, hooks.AcceptedHook.OnAccepted, e)
	}
}

// Refused calls the hooks.RefusedHooks.
func (s *Set) Refused(e hooks.Refused) {
	if s != nil {
		each(s, "OnRefused", s.refused, hooks.RefusedHook.OnRefused, e)
	}
}

// Moved calls the hooks.MovedHooks.
func (s *Set) Moved(e hooks.Moved) {
	if s != nil {
		each(s, "OnMoved", s.moved, hooks.MovedHook.OnMoved, e)
	}
}

// AddressState calls the hooks.AddressStateHooks.
func (s *Set) AddressState(e hooks.AddressState) {
	if s != nil {
		each(s, "OnAddressState", s.states, hooks.AddressStateHook.OnAddressState, e)
	}
}

// Resolved calls the hooks.ResolvedHooks.
func (s *Set) Resolved(e hooks.Resolved) {
	if s != nil {
		each(s, "OnResolved", s.resolved, hooks.ResolvedHook.OnResolved, e)
	}
}

// Forgotten calls the hooks.ForgottenHooks.
func (s *Set) Forgotten(e hooks.Forgotten) {
	if s != nil {
		each(s, "OnForgotten", s.forgotten, hooks.ForgottenHook.OnForgotten, e)
	}
}

// Sent calls the hooks.SentHooks.
func (s *Set) Sent(e hooks.Sent) {
	if s != nil {
		each(s, "OnSent", s.sent, hooks.SentHook.OnSent, e)
	}
}

// Received calls the hooks.ReceivedHooks.
func (s *Set) Received(e hooks.Received) {
	if s != nil {
		each(s, "OnReceived", s.received, hooks.ReceivedHook.OnReceived, e)
	}
}

// Duplicate calls the hooks.DuplicateHooks.
func (s *Set) Duplicate(e hooks.Duplicate) {
	if s != nil {
		each(s, "OnDuplicate", s.duplicate, hooks.DuplicateHook.OnDuplicate, e)
	}
}

// Settled calls the hooks.SettledHooks.
func (s *Set) Settled(e hooks.Settled) {
	if s != nil {
		each(s, "OnSettled", s.settled, hooks.SettledHook.OnSettled, e)
	}
}

// Handled calls the hooks.HandledHooks.
func (s *Set) Handled(e hooks.Handled) {
	if s != nil {
		each(s, "OnHandled", s.handled, hooks.HandledHook.OnHandled, e)
	}
}

// WindowFull calls the hooks.WindowFullHooks.
func (s *Set) WindowFull(e hooks.WindowFull) {
	if s != nil {
		each(s, "OnWindowFull", s.windowFull, hooks.WindowFullHook.OnWindowFull, e)
	}
}

// Redelivered calls the hooks.RedeliveredHooks.
func (s *Set) Redelivered(e hooks.Redelivered) {
	if s != nil {
		each(s, "OnRedelivered", s.redelivered, hooks.RedeliveredHook.OnRedelivered, e)
	}
}

// DeadLettered calls the hooks.DeadLetteredHooks.
func (s *Set) DeadLettered(e hooks.DeadLettered) {
	if s != nil {
		each(s, "OnDeadLettered", s.dead, hooks.DeadLetteredHook.OnDeadLettered, e)
	}
}

// Rejected calls the hooks.RejectedHooks.
func (s *Set) Rejected(e hooks.Rejected) {
	if s != nil {
		each(s, "OnRejected", s.rejected, hooks.RejectedHook.OnRejected, e)
	}
}
