// Package hook calls the user's code, such that a panic, or a call that does not return, is an error of that one call.
package hook

import (
	"context"
	"fmt"
)

// PanicError is a panic of the user's code.
type PanicError struct {
	Name  string // of the callback
	Value any
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("buffstreams: %s panicked: %v", e.Name, e.Value)
}

// Call runs the user's code of the given name. A panic is a *PanicError.
func Call(name string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{name, p}
		}
	}()
	return f()
}

// CallWithin is Call for code that has ctx and may not heed it: it returns when ctx is done, whatever f does. What f
// returns later is given to discard, if there is one.
func CallWithin[T any](ctx context.Context, name string, f func() (T, error), discard func(T)) (T, error) {
	type outcome struct {
		result T
		err    error
	}
	done, left := make(chan outcome, 1), make(chan struct{})
	go func() { // Ends when f returns; the caller waits for it until ctx is done.
		var o outcome
		o.err = Call(name, func() (err error) {
			o.result, err = f()
			return err
		})
		done <- o
		select {
		case <-left:
			select {
			case o := <-done:
				if discard != nil && o.err == nil {
					discard(o.result)
				}
			default: // the caller had it after all
			}
		default:
		}
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
	}
	close(left)
	select {
	case o := <-done: // it heeded ctx, and says more
		return o.result, o.err
	default:
		var none T
		return none, fmt.Errorf("buffstreams: %s has not returned: %w", name, ctx.Err())
	}
}
