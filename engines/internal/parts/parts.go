// Package parts divides the messages of a Publish call into what one request to an engine carries.
package parts

import (
	"errors"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// Limit bounds a part. A message that is larger is a part of its own.
type Limit struct{ Messages, Bytes int }

// Store stores a part, and sets the errors of its messages. It returns an error that keeps what follows from being
// stored.
type Store[M any] func(part []M, errs []error) error

// Publish stores messages part by part, in order. What follows an error that Store returns has it too.
func Publish[M any](messages []M, limit Limit, size func(M) int, store Store[M]) error {
	errs := make([]error, len(messages))
	for from := 0; from < len(messages); {
		to := from + cut(messages[from:], limit, size)
		if err := store(messages[from:to], errs[from:to]); err != nil {
			_ = Fail(errs[to:], err)
			break
		}
		from = to
	}
	return driver.NewPublishError(errs)
}

// cut returns how many messages are the next part.
func cut[M any](messages []M, limit Limit, size func(M) int) (n int) {
	for bytes := 0; n < min(len(messages), limit.Messages); n++ {
		if bytes += size(messages[n]); bytes > limit.Bytes && n > 0 {
			break
		}
	}
	return n
}

// Fail sets an error for all messages, and returns it.
func Fail(errs []error, err error) error {
	for i := range errs {
		errs[i] = err
	}
	return err
}

// Whole is the Store of requests that store all of a part or nothing. One that is refused is made again by halves,
// until each message that it is about is alone.
func Whole[M any](request func(part []M) error) Store[M] {
	return func(part []M, errs []error) error {
		err := request(part)
		var refused *driver.RefusedError
		switch {
		case !errors.As(err, &refused):
			return Fail(errs, err)
		case len(part) == 1:
			errs[0] = err
			return nil
		}
		return Halves(part, errs, Whole(request))
	}
}

// Halves stores the halves of a part that the engine refuses as a whole, as it does not say because of which message.
func Halves[M any](part []M, errs []error, store Store[M]) error {
	half := len(part) / 2
	if err := store(part[:half], errs[:half]); err != nil {
		return Fail(errs[half:], err)
	}
	return store(part[half:], errs[half:])
}
