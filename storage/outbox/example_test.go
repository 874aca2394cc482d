package outbox_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// An outbox is a directory that one process has open. It goes into PublisherConfig.Outbox, and is closed after its
// publishers.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		log.Panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	box, err := outbox.Open(outbox.Config{Dir: filepath.Join(dir, "outbox"), QuotaBytes: 1 << 30})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(box.Close())
	// Output: <nil>
}
