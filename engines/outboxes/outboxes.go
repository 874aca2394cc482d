// Package outboxes opens the outbox that a URL of this library names with outbox=DIR. It is a module of its own, as
// storage engines come with it.
package outboxes

import (
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Open opens the outbox in a directory: for Options.OpenOutbox of package engines.
func Open(dir string) (box store.Outbox, closeBox func() error, err error) {
	o, err := outbox.Open(outbox.Config{Dir: dir})
	if err != nil {
		return nil, nil, err
	}
	return o, o.Close, nil
}
