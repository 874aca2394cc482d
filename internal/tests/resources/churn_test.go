//go:build linux

package resources

import (
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// TestChurn connects and closes, again and again: publishers that deliver a message, strangers that say nothing, and now
// and then a listener of its own. Nothing may stay.
func TestChurn(t *testing.T) {
	count := int(testkit.EnvNumber(t, "CHURN", 3000))
	if testing.Short() || testkit.RaceEnabled {
		count = min(count, 500)
	}
	testkit.CheckLeaks(t)
	// Publishers that are gone are forgotten soon; what they would leave must not add up.
	cfg := buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxPublishers: 1024, MaxStreams: 1024}}
	sub, topic, messages, err := subscribe(cfg)
	require.NoError(t, err)
	var handled atomic.Int64
	done := make(chan struct{})
	go func() { // ends when the subscriber closes
		defer close(done)
		for msg := range messages {
			handled.Add(1)
			msg.Ack()
		}
	}()

	idle, heap := state(), heapMiB()
	began := time.Now()
	churn(t, topic, 0, count-count/20)
	took := time.Since(began)
	// The collector closes sockets that nobody did: the last rounds go without.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	churn(t, topic, count-count/20, count)
	now := state()
	const crew = 4 // goroutines that a Manager keeps for writing once it has written
	for ended := time.Now(); now.goroutines > idle.goroutines+crew || now.descriptors > idle.descriptors; now = state() {
		require.Less(t, time.Since(ended), patience, "%+v is left, %+v was there", now, idle)
		<-time.After(20 * time.Millisecond) // what closes may take a moment
	}
	grown := heapMiB() - heap
	t.Logf("%d times connected and closed in %v; before %+v, after %+v, heap grown by %d MiB",
		count, took.Round(time.Millisecond), idle, now, grown)
	require.Less(t, grown, allowance>>20)
	require.EqualValues(t, count, handled.Load())
	require.NoError(t, sub.Close())
	<-done
}

// figures are what a process holds.
type figures struct{ goroutines, descriptors int }

func state() figures { return figures{runtime.NumGoroutine(), testkit.Descriptors()} }

func heapMiB() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 20)
}

// churn does the rounds first to last-1, several side by side.
func churn(t *testing.T, topic string, first, last int) {
	t.Helper()
	var next atomic.Int64
	next.Store(int64(first))
	failed := make(chan error, 8)
	var all sync.WaitGroup
	for range cap(failed) {
		all.Go(func() { // ends when all rounds are done
			for i := int(next.Add(1)); i <= last; i = int(next.Add(1)) {
				if err := once(topic, i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	require.NoError(t, <-failed)
}

func once(topic string, i int) error {
	if i%10 == 0 {
		if err := strange(topic); err != nil {
			return err
		}
	}
	if i%50 == 0 {
		if err := listenAndClose(); err != nil {
			return err
		}
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	if err != nil {
		return err
	}
	if err := pub.Publish(topic, numbered(i, 1)...); err != nil {
		return err
	}
	return pub.Close()
}

// strange connects and closes without a word.
func strange(topic string) error {
	address, _, _ := strings.Cut(topic, "/")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// listenAndClose subscribes and closes.
func listenAndClose() error {
	sub, _, messages, err := subscribe(buffstreams.ManagerConfig{})
	if err != nil {
		return err
	}
	if err := sub.Close(); err != nil {
		return err
	}
	if msg, open := <-messages; open {
		return fmt.Errorf("a message from nobody: %s", msg.Payload)
	}
	return nil
}
