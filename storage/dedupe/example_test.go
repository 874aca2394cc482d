package dedupe_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
)

// A store goes into AckedConfig.Dedupe, and is closed after the Manager.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "dedupe")
	if err != nil {
		log.Panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := dedupe.Open(filepath.Join(dir, "dedupe"))
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(store.Close())
	// Output: <nil>
}

// Publishers that were killed are forgotten a week after their last message.
func ExampleOpenConfig() {
	dir, err := os.MkdirTemp("", "dedupe")
	if err != nil {
		log.Panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, err := dedupe.OpenConfig(dedupe.Config{Path: filepath.Join(dir, "dedupe"), ForgetAfter: 7 * 24 * time.Hour})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(store.Close())
	// Output: <nil>
}
