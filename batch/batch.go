// Package batch hands messages to a handler several at a time: up to a number of them, or what has come within a time.
// It is for handlers whose cost is per call, such as an insert into a database, and works with any Watermill subscriber
// that has several messages unacked at a time; with this module's, set SubscriberConfig.MaxInFlight to twice
// Config.Size, so that the next batch gathers while one is handled.
//
// A limit of the subscriber for how long a message may take, such as SubscriberConfig.AckWaitTimeout, counts for the
// wait and for the whole batch.
//
// Order is kept, also where messages fail: what failed is handed again in its place, before anything that came after
// it. It is the order of one subscription: where that ends while Run reads, what goes back to the subscriber can be
// older than what was read.
package batch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Handler handles messages, in the order in which they came. Its result decides about all or each of them: nil acks
// all; an Errors acks those whose error is nil; a *FromError acks those before its Index; any other error, or a panic,
// fails all. What failed is handed again. Messages that the handler has acked or nacked itself are left to that: one
// that it nacks comes again from the subscriber, and so after those behind it.
//
// The slice is the handler's until it returns. ctx ends with the context of Run, and with that of the first message
// that is not settled: its subscription is closing, or the subscriber has given up waiting for it.
type Handler func(ctx context.Context, msgs []*message.Message) error

// Errors is the result of a Handler that handled some messages and not others: one for each message, nil for those that
// are handled. One of another length, or joined with other errors, fails all of them.
type Errors []error

func (e Errors) Error() string {
	return fmt.Sprintf("batch: some messages failed: %v", errors.Join(e...))
}

// Unwrap is for errors.Is and errors.As.
func (e Errors) Unwrap() []error { return e }

// FromError is the result of a Handler that stopped at a message: those before Index are handled, that at Index has
// failed, those after it were not tried. An Index that is none fails all messages.
type FromError struct {
	Index int
	Err   error
}

func (e *FromError) Error() string {
	return fmt.Sprintf("batch: message %d failed: %v", e.Index, e.Err)
}

func (e *FromError) Unwrap() error { return e.Err }

// PanicError is a panic of a Handler, or of Config.Failed.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("batch: panic: %v\n%s", e.Value, e.Stack) }

// Defaults of Config.
const (
	DefaultSize     = 100
	DefaultWait     = 10 * time.Millisecond
	DefaultSleep    = 100 * time.Millisecond
	DefaultSleepCap = 10 * time.Second
)

// NoWait as Config.Wait hands over what is there.
const NoWait time.Duration = -1

// Config configures Run. The zero value is valid.
type Config struct {
	// Size is the most messages of a batch; 0 means 100. Above the subscriber's limit of unacked messages no batch is
	// full, and each waits for Wait.
	Size int
	// Wait is how long a batch that has a message waits for more; 0 means 10 ms, NoWait not at all.
	Wait time.Duration
	// Sleep is the wait before messages that failed are handed again; it doubles with each further failure, up to
	// SleepCap. 0 means 100 ms and 10 s. After a failure batches begin with one message and double with each success,
	// so that one bad message soon stands alone.
	Sleep, SleepCap time.Duration
	// MaxAttempts is how often a message may fail by itself, alone or with an error of its own, before it has failed
	// for good; 0 means without limit: it holds up those behind it for as long as it fails.
	MaxAttempts int
	// Failed is called for a message that has failed for good, to put it away. Nil from it acks the message; with an
	// error or a panic the message is kept in its place, and is handed to the Handler again after a wait. Without
	// Failed the message is nacked: the subscriber decides, and it comes again after those behind it. It is called on
	// the goroutine of Run, with the ctx of a Handler.
	Failed func(ctx context.Context, msg *message.Message, reason error) error
	// Logger gets an error for each call that failed. Nil means none.
	Logger watermill.LoggerAdapter
}

func (c *Config) setDefaults() {
	if c.Size == 0 {
		c.Size = DefaultSize
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	if c.Sleep == 0 {
		c.Sleep = DefaultSleep
	}
	if c.SleepCap == 0 {
		c.SleepCap = max(DefaultSleepCap, c.Sleep)
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Size < 0:
		return fmt.Errorf("batch: Config.Size: %d is negative", c.Size)
	case c.Wait < 0 && c.Wait != NoWait:
		return fmt.Errorf("batch: Config.Wait: %v is negative; use NoWait for none", c.Wait)
	case c.Sleep < 0:
		return fmt.Errorf("batch: Config.Sleep: %v is negative", c.Sleep)
	case c.SleepCap < 0 || c.SleepCap != 0 && c.SleepCap < c.Sleep:
		return fmt.Errorf("batch: Config.SleepCap: %v is less than Sleep", c.SleepCap)
	case c.MaxAttempts < 0:
		return fmt.Errorf("batch: Config.MaxAttempts: %d is negative", c.MaxAttempts)
	case c.Failed != nil && c.MaxAttempts == 0:
		return errors.New("batch: Config.Failed: without MaxAttempts no message fails for good; set it")
	}
	return nil
}
