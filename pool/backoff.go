package pool

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// RetryConfig says how a Writer comes back after it lost its connection. The
// zero value of each field means its default.
type RetryConfig struct {
	// InitialInterval bounds the wait before the second attempt; the first is
	// made at once. 0 means 100 ms.
	InitialInterval time.Duration
	// MaxInterval bounds every wait. 0 means 10 s.
	MaxInterval time.Duration
	// Multiplier is the growth of the bound from one wait to the next. 0 means 2.
	Multiplier float64
	// MaxAttempts is the number of attempts without any progress after which
	// what is pending has failed for good. 0 means 5, RetryForever (-1) never.
	MaxAttempts int
	// BackOff replaces the intervals above; it is called once per Writer. A
	// backoff.Stop from it means that the attempts are used up.
	BackOff func() backoff.BackOff
}

// RetryForever as RetryConfig.MaxAttempts never gives up.
const RetryForever = -1

// DefaultRetryConfig waits between 0 and 100 ms first, doubles that bound up to
// 10 s, and gives up after five attempts.
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
