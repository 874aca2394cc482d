package hooks_test

import (
	"fmt"
	"log"
	"sync"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// watcher implements all hooks. Most implement one or two, such as OnLost.
type watcher struct{ seen *sync.Map }

// saw notes the kind of an event. It is called concurrently, and must not block.
func (w watcher) saw(event any) { w.seen.Store(fmt.Sprintf("%T", event), true) }

func (w watcher) OnDialed(e hooks.Dialed)                   { w.saw(e) }
func (w watcher) OnConnected(e hooks.Connected)             { w.saw(e) }
func (w watcher) OnLost(e hooks.Lost)                       { w.saw(e) }
func (w watcher) OnAccepted(e hooks.Accepted)               { w.saw(e) }
func (w watcher) OnRefused(e hooks.Refused)                 { w.saw(e) }
func (w watcher) OnAddressState(e hooks.AddressState)       { w.saw(e) }
func (w watcher) OnMoved(e hooks.Moved)                     { w.saw(e) }
func (w watcher) OnResolved(e hooks.Resolved)               { w.saw(e) }
func (w watcher) OnForgotten(e hooks.Forgotten)             { w.saw(e) }
func (w watcher) OnSent(e hooks.Sent)                       { w.saw(e) }
func (w watcher) OnReceived(e hooks.Received)               { w.saw(e) }
func (w watcher) OnDuplicate(e hooks.Duplicate)             { w.saw(e) }
func (w watcher) OnSettled(e hooks.Settled)                 { w.saw(e) }
func (w watcher) OnHandled(e hooks.Handled)                 { w.saw(e) }
func (w watcher) OnWindowFull(e hooks.WindowFull)           { w.saw(e) }
func (w watcher) OnRedelivered(e hooks.Redelivered)         { w.saw(e) }
func (w watcher) OnDeadLettered(e hooks.DeadLettered)       { w.saw(e) }
func (w watcher) OnRejected(e hooks.Rejected)               { w.saw(e) }
func (w watcher) OnOutboxAppended(e hooks.OutboxAppended)   { w.saw(e) }
func (w watcher) OnOutboxSynced(e hooks.OutboxSynced)       { w.saw(e) }
func (w watcher) OnOutboxRecovered(e hooks.OutboxRecovered) { w.saw(e) }

var (
	_ hooks.DialedHook          = watcher{}
	_ hooks.ConnectedHook       = watcher{}
	_ hooks.LostHook            = watcher{}
	_ hooks.AcceptedHook        = watcher{}
	_ hooks.RefusedHook         = watcher{}
	_ hooks.AddressStateHook    = watcher{}
	_ hooks.MovedHook           = watcher{}
	_ hooks.ResolvedHook        = watcher{}
	_ hooks.ForgottenHook       = watcher{}
	_ hooks.SentHook            = watcher{}
	_ hooks.ReceivedHook        = watcher{}
	_ hooks.DuplicateHook       = watcher{}
	_ hooks.SettledHook         = watcher{}
	_ hooks.HandledHook         = watcher{}
	_ hooks.WindowFullHook      = watcher{}
	_ hooks.RedeliveredHook     = watcher{}
	_ hooks.DeadLetteredHook    = watcher{}
	_ hooks.RejectedHook        = watcher{}
	_ hooks.OutboxAppendedHook  = watcher{}
	_ hooks.OutboxSyncedHook    = watcher{}
	_ hooks.OutboxRecoveredHook = watcher{}
)

func Example() {
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Hooks: []hooks.Hook{watcher{&sync.Map{}}}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(manager.Close())
	// Output: <nil>
}
