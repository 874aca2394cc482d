package pool

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// RetryConfig says how a Writer reconnects. The zero value of each field means its default.
//
// The first attempt after a connection broke is made at once, unless that connection was opened less than
// InitialInterval ago. Each wait before a later attempt is a random part of an interval that grows ("full jitter").
type RetryConfig struct {
	// InitialInterval bounds the first wait. 0 means 100 ms.
	InitialInterval time.Duration
	// MaxInterval bounds every wait. 0 means 10 s.
	MaxInterval time.Duration
	// Multiplier is the growth of the bound from one wait to the next. 0 means 2.
	Multiplier float64
	// MaxAttempts is the number of attempts in a row after which the messages that wait have failed for good. A message
	// that was sent ends the row. 0 means 5, RetryForever no limit.
	MaxAttempts int
	// BackOff replaces the waits above. It is called once for each Writer, which uses the result from one goroutine at
	// a time. A backoff.Stop means that the attempts are used up.
	BackOff func() backoff.BackOff
}

// RetryForever as RetryConfig.MaxAttempts never gives up.
const RetryForever = -1

// DefaultRetryConfig returns the defaults: waits of up to 100 ms, doubled up to 10 s, and five attempts.
func DefaultRetryConfig() *RetryConfig {
	return &RetryConfig{
		InitialInterval: 100 * time.Millisecond,
		MaxInterval:     10 * time.Second,
		Multiplier:      2,
		MaxAttempts:     5,
	}
}

func (c *RetryConfig) setDefaults() {
	d := DefaultRetryConfig()
	setDefault(&c.InitialInterval, d.InitialInterval)
	setDefault(&c.MaxInterval, d.MaxInterval)
	setDefault(&c.Multiplier, d.Multiplier)
	setDefault(&c.MaxAttempts, d.MaxAttempts)
	if c.BackOff == nil {
		initial, limit, multiplier := c.InitialInterval, c.MaxInterval, c.Multiplier
		c.BackOff = func() backoff.BackOff { return netio.NewFullJitter(initial, limit, multiplier) }
	}
}

func (c RetryConfig) validate() error {
	switch {
	case c.InitialInterval < 0:
		return configError("RetryConfig.InitialInterval", "%v is negative", c.InitialInterval)
	case c.MaxInterval < c.InitialInterval:
		return configError("RetryConfig.MaxInterval", "%v is less than InitialInterval %v", c.MaxInterval, c.InitialInterval)
	case !(c.Multiplier >= 1):
		return configError("RetryConfig.Multiplier", "%v is less than 1", c.Multiplier)
	case c.MaxAttempts < RetryForever:
		return configError("RetryConfig.MaxAttempts", "%d; use RetryForever to never give up", c.MaxAttempts)
	}
	return nil
}
