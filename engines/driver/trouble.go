package driver

import (
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// troubleEvery is how often a failure that goes on is logged.
const troubleEvery = time.Minute

// Trouble logs what fails again and again: once for each cause, then each minute with the count, and once when it is
// over. It is safe for concurrent use.
type Trouble struct {
	// Logger takes the lines. What says what fails, Over that it works again.
	Logger     watermill.LoggerAdapter
	What, Over string

	mu       sync.Mutex
	failures int
	began    time.Time
	logged   time.Time
	causes   map[*Cause]bool // that were logged; nil is one too
}

// Failed notes a failure.
func (t *Trouble) Failed(err error, fields watermill.LogFields) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var explained *ServerError
	var cause *Cause
	if errors.As(err, &explained) {
		cause = explained.Cause
	}
	now := time.Now()
	if t.failures == 0 {
		t.began, t.causes = now, map[*Cause]bool{}
	}
	t.failures++
	if t.causes[cause] && now.Sub(t.logged) < troubleEvery {
		return
	}
	t.logged, t.causes[cause] = now, true
	t.Logger.Error(t.What, err, fields.Add(watermill.LogFields{"failures": t.failures}))
}

// Worked notes that there was no failure.
func (t *Trouble) Worked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures > 0 {
		t.Logger.Info(t.Over, watermill.LogFields{"failures": t.failures, "after": time.Since(t.began).Round(time.Millisecond).String()})
	}
	t.failures = 0
}
