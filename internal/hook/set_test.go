package hook

import (
	"errors"
	"reflect"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// all watches every event, and notes the names of its methods that are called.
type all struct {
	called []string
	fails  bool
}

func (a *all) note(name string) {
	a.called = append(a.called, name)
	if a.fails {
		panic(name)
	}
}

func (a *all) OnDialed(hooks.Dialed)             { a.note("OnDialed") }
func (a *all) OnConnected(hooks.Connected)       { a.note("OnConnected") }
func (a *all) OnLost(hooks.Lost)                 { a.note("OnLost") }
func (a *all) OnAccepted(hooks.Accepted)         { a.note("OnAccepted") }
func (a *all) OnRefused(hooks.Refused)           { a.note("OnRefused") }
func (a *all) OnMoved(hooks.Moved)               { a.note("OnMoved") }
func (a *all) OnAddressState(hooks.AddressState) { a.note("OnAddressState") }
func (a *all) OnResolved(hooks.Resolved)         { a.note("OnResolved") }
func (a *all) OnForgotten(hooks.Forgotten)       { a.note("OnForgotten") }
func (a *all) OnSent(hooks.Sent)                 { a.note("OnSent") }
func (a *all) OnReceived(hooks.Received)         { a.note("OnReceived") }
func (a *all) OnDuplicate(hooks.Duplicate)       { a.note("OnDuplicate") }
func (a *all) OnSettled(hooks.Settled)           { a.note("OnSettled") }
func (a *all) OnHandled(hooks.Handled)           { a.note("OnHandled") }
func (a *all) OnWindowFull(hooks.WindowFull)     { a.note("OnWindowFull") }
func (a *all) OnRedelivered(hooks.Redelivered)   { a.note("OnRedelivered") }
func (a *all) OnDeadLettered(hooks.DeadLettered) { a.note("OnDeadLettered") }
func (a *all) OnRejected(hooks.Rejected)         { a.note("OnRejected") }

// none watches nothing that a Set has.
type none struct{}

// tells calls each method of a Set that takes an event.
func tells(s *Set, called func(name string)) {
	set := reflect.ValueOf(s)
	for i := range set.NumMethod() {
		if f := set.Method(i); f.Type().NumIn() == 1 {
			f.Call([]reflect.Value{reflect.Zero(f.Type().In(0))})
			called(set.Type().Method(i).Name)
		}
	}
}

// TestSet_CallsTheHooksOfEachEvent, all of them, whether or not one panics, which the log has with its name.
func TestSet_CallsTheHooksOfEachEvent(t *testing.T) {
	log := testkit.NewLog()
	bad, good, events := &all{fails: true}, &all{}, 0
	s := NewSet([]hooks.Hook{bad, none{}, good}, log)
	tells(s, func(name string) {
		events++
		for _, h := range []*all{bad, good} {
			require.Equal(t, []string{"On" + name}, h.called)
			h.called = nil
		}
		var panicked *PanicError
		require.ErrorAs(t, log.Next(t, "error").Err, &panicked)
		require.Equal(t, "On"+name, panicked.Name)
		require.Zero(t, s.Running())
	})
	require.Equal(t, reflect.TypeFor[*all]().NumMethod(), events, "each event of package hooks")
	require.Empty(t, log.Lines)
}

// TestSet_OfNoHooksDoesNothing, and says that nothing watches an event.
func TestSet_OfNoHooksDoesNothing(t *testing.T) {
	require.Nil(t, NewSet(nil, nil))
	var nothing *Set
	tells(nothing, func(string) {})
	require.Zero(t, nothing.Running())
	for s, watches := range map[*Set]bool{
		nil: false, NewSet([]hooks.Hook{none{}}, nil): false, NewSet([]hooks.Hook{&all{}}, nil): true,
	} {
		require.Equal(t, watches, s.WatchesSent())
		require.Equal(t, watches, s.WatchesReceived())
		require.Equal(t, watches, s.WatchesSettled())
		require.Equal(t, watches, s.WatchesHandled())
		require.Equal(t, watches, s.WatchesWindow())
	}
	require.True(t, Implemented(&all{}))
	require.False(t, Implemented(none{}))
}

// badLogger panics, whatever it is asked for.
type badLogger struct{ watermill.LoggerAdapter }

func (badLogger) Error(string, error, watermill.LogFields)         { panic("Error") }
func (badLogger) Info(string, watermill.LogFields)                 { panic("Info") }
func (badLogger) Debug(string, watermill.LogFields)                { panic("Debug") }
func (badLogger) Trace(string, watermill.LogFields)                { panic("Trace") }
func (badLogger) With(watermill.LogFields) watermill.LoggerAdapter { panic("With") }

// TestLogger_NeverPanics, nor does one that is made of it.
func TestLogger_NeverPanics(t *testing.T) {
	bad := Logger(badLogger{})
	for _, l := range []watermill.LoggerAdapter{bad, bad.With(nil), Logger(nil)} {
		require.NotPanics(t, func() {
			l.Error("", errors.New("no"), nil)
			l.Info("", nil)
			l.Debug("", nil)
			l.Trace("", nil)
		})
	}
}

// TestLogger_IsTheUsers: what it is told, and the fields of one that is made of it, arrive.
func TestLogger_IsTheUsers(t *testing.T) {
	user := watermill.NewCaptureLogger()
	l := Logger(user)
	require.Equal(t, l, Logger(l))
	failed := errors.New("no")
	l.Error("bad", failed, nil)
	l.Info("good", nil)
	l.Debug("more", nil)
	l.With(watermill.LogFields{"a": 1}).Trace("all", watermill.LogFields{"b": 2})
	require.True(t, user.Has(watermill.CapturedMessage{Level: watermill.ErrorLogLevel, Msg: "bad", Err: failed, Fields: watermill.LogFields{}}))
	require.True(t, user.Has(watermill.CapturedMessage{Level: watermill.InfoLogLevel, Msg: "good", Fields: watermill.LogFields{}}))
	require.True(t, user.Has(watermill.CapturedMessage{Level: watermill.DebugLogLevel, Msg: "more", Fields: watermill.LogFields{}}))
	require.True(t, user.Has(watermill.CapturedMessage{
		Level: watermill.TraceLogLevel, Msg: "all", Fields: watermill.LogFields{"a": 1, "b": 2},
	}), "%v", user.Captured())
}
