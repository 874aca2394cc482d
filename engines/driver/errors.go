package driver

import (
	"errors"
	"fmt"
)

// ErrNoTopic means that a topic is not there and create=false keeps the driver from making it.
var ErrNoTopic = errors.New("the topic does not exist, and create=false")

// ErrTooLarge means that a message is larger than the engine, or max_message_size, allows.
var ErrTooLarge = errors.New("the message is too large")

// ErrUnknownParameter means that an engine has no such URL parameter.
var ErrUnknownParameter = errors.New("unknown parameter")

// ParameterError is about a parameter of a URL.
type ParameterError struct {
	Engine, Parameter string
	Err               error
}

func (e *ParameterError) Error() string {
	return fmt.Sprintf("engines: %s: %.100s: %v", e.Engine, e.Parameter, e.Err)
}

func (e *ParameterError) Unwrap() error { return e.Err }

// UnsupportedError means that an engine cannot do what a URL, or a call, asks for.
type UnsupportedError struct {
	Engine, Parameter, Why string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("engines: %s cannot do %s: %s", e.Engine, e.Parameter, e.Why)
}

// RefusedError means that an engine refuses a message for good: publishing it again is of no use.
type RefusedError struct {
	Engine, Topic string
	Err           error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("engines: %s refuses a message for %.200q: %v", e.Engine, e.Topic, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// PublishError accounts for the messages of a Publish call.
type PublishError struct {
	// Errs has an entry for each message; nil means that the engine has confirmed it.
	Errs []error
}

func (e *PublishError) Error() string {
	failed, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			failed++
			if first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("engines: %d of %d messages are not confirmed: %v", failed, len(e.Errs), first)
}

// Unwrap returns the errors of the messages that have one.
func (e *PublishError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// NewPublishError returns nil if no message has an error.
func NewPublishError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return &PublishError{Errs: errs}
		}
	}
	return nil
}
