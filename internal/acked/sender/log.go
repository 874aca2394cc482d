package sender

import (
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// lines is what a Sender remembers of its log: a connection that flaps is logged once, and then counted.
type lines struct {
	lost, refused, waits netio.Quiet

	// Of run and the reader.
	down     bool      // a line says that there is no connection
	downAt   time.Time // when
	attempts int       // to connect since
}

func (s *Sender) fields(more watermill.LogFields) watermill.LogFields {
	return watermill.LogFields{"provider": netio.Provider, "address": s.cfg.Target.Address}.Add(more)
}

// logLost logs that a connection was lost, or could not be made: the first time, and then once a minute with a count.
// What a person has to see to, such as a token that is refused, is an error. Only run calls it.
func (s *Sender) logLost(err error, delay time.Duration) {
	l := &s.lines
	l.attempts++
	fields := s.fields(watermill.LogFields{"err": netio.Sanitize(err), "delay": delay})
	quiet := &l.lost
	if definite(err) {
		quiet = &l.refused
	}
	count, ok := quiet.Say()
	if !ok {
		s.cfg.Logger.Debug("Connection lost again, reconnecting", fields)
		return
	}
	if !l.down {
		l.down, l.downAt, l.attempts = true, time.Now(), 1
	}
	if count > 1 {
		fields["count"] = count // since the line before
	}
	if definite(err) {
		s.cfg.Logger.Error("The connection is refused until a configuration changes; trying again", netio.Sanitize(err), fields)
	} else {
		s.cfg.Logger.Info("Connection lost, reconnecting", fields)
	}
}

// logConnected logs that there is a connection again, if a line says that there is none.
func (s *Sender) logConnected() {
	l := &s.lines
	if !l.down {
		s.cfg.Logger.Debug("Connected", s.fields(nil))
		return
	}
	l.down = false
	s.cfg.Logger.Info("Connected again", s.fields(watermill.LogFields{
		"attempts": l.attempts, "after": time.Since(l.downAt).Round(time.Millisecond),
	}))
}

// longWait is when calls of Publish have waited for so long that a line says why.
const longWait = time.Second

// waiting is what such a line says. The zero value is none.
type waiting struct {
	topic   string
	longest time.Duration
	calls   int
	reason  error
}

// longWaitLocked returns what there is to say of calls that wait. The caller must hold mu.
func (s *Sender) longWaitLocked(now time.Time) (w waiting) {
	stream, since, calls := s.client.LongestWait()
	if stream == nil || now.Sub(since) < longWait {
		return w
	}
	if _, ok := s.lines.waits.Say(); !ok {
		return w
	}
	w = waiting{topic: stream.Topic, longest: now.Sub(since), calls: calls, reason: s.timeoutErrorLocked(stream)}
	if timeout, ok := w.reason.(*TimeoutError); ok { //nolint:errorlint // made there; it has not timed out yet
		w.reason = timeout.Cause
	}
	return w
}

func (w waiting) log(s *Sender) {
	if w.reason == nil {
		return
	}
	s.cfg.Logger.Info("Publish has waited for more than a second", s.fields(watermill.LogFields{
		"topic": netio.Quote(w.topic), "waited": w.longest.Round(time.Millisecond), "calls": w.calls,
		"reason": netio.Sanitize(w.reason).Error(),
	}))
}
