package hook

import "fmt"

// call runs a hook. One that panics has refused.
func Call(hook func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("buffstreams: the hook panicked: %v", p)
		}
	}()
	return hook()
}
