//go:build linux

package resources

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// TestConnections_Many lets a second process open thousands of connections: all are served, at once and again while all
// of them are open.
func TestConnections_Many(t *testing.T) {
	count := int(testkit.EnvNumber(t, "CONNECTIONS", 10_000))
	if testing.Short() || testkit.RaceEnabled {
		count = min(count, 500)
	}
	if err := limitDescriptors(uint64(count + 500)); err != nil {
		t.Skip(err)
	}
	testkit.CheckLeaks(t)
	cfg := buffstreams.AckedConfig{HandshakeTimeout: patience, MaxConnections: 8 * count}
	sub, topic, messages, err := subscribe(buffstreams.ManagerConfig{Acked: cfg})
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close()) }()
	var handled atomic.Int64
	done := make(chan struct{})
	go func() { // ends when the subscriber closes
		defer close(done)
		for msg := range messages {
			handled.Add(1)
			msg.Ack()
		}
	}()

	before := resident(t, "self")
	cmd := child(t, "connections", topic, strconv.Itoa(count))
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	answers := bufio.NewScanner(out)
	for round := 1; round <= 2; round++ {
		began := time.Now()
		require.True(t, answers.Scan(), "the other process ended")
		require.EqualValues(t, round*count, handled.Load())
		after := resident(t, "self")
		t.Logf("round %d: a message on each of %d connections handled in %v; here %.1f KiB for each connection, in the other process %s",
			round, count, time.Since(began).Round(time.Millisecond), float64(after-before)/float64(count), answers.Text())
		if !testkit.RaceEnabled { // which takes memory of its own
			require.Less(t, (after-before)/count, 100, "KiB for each connection")
		}
		_, err := io.WriteString(in, "go on\n")
		require.NoError(t, err)
	}
	_, _ = io.Copy(io.Discard, out)
	require.NoError(t, cmd.Wait())
	require.NoError(t, sub.Close())
	<-done
}

// resident is the memory of a process in KiB.
func resident(t *testing.T, pid string) int {
	n, err := status(pid, "VmRSS")
	require.NoError(t, err)
	return n
}

// openConnections publishes on that many links, twice, each time until everything is handled.
func openConnections(topic, text string) error {
	count, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	if err := limitDescriptors(uint64(count + 500)); err != nil {
		return err
	}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Dial: toListener(topic), Acked: buffstreams.AckedConfig{HandshakeTimeout: patience}})
	if err != nil {
		return err
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmHandled}, nil)
	if err != nil {
		return err
	}
	before, err := status("self", "VmRSS")
	if err != nil {
		return err
	}
	_, name, _ := strings.Cut(topic, "/")
	for range 2 {
		if err := publishOnEach(pub, count, name); err != nil {
			return err
		}
		after, err := status("self", "VmRSS")
		if err != nil {
			return err
		}
		fmt.Printf("%.1f KiB\n", float64(after-before)/float64(count))
		if _, err := fmt.Scanln(new(string), new(string)); err != nil {
			return err
		}
	}
	return errors.Join(pub.Close(), m.Close())
}

// publishOnEach publishes a message to each of count addresses, which all lead to the same listener.
func publishOnEach(pub *buffstreams.Publisher, count int, name string) error {
	const side = 200 // calls side by side
	failed := make(chan error, side)
	var next atomic.Int64
	var all sync.WaitGroup
	for range side {
		all.Go(func() { // ends when all addresses had their turn
			for i := int(next.Add(1)); i <= count; i = int(next.Add(1)) {
				address := fmt.Sprintf("10.0.%d.%d:1/%s", i>>8, i&255, name)
				if err := pub.Publish(address, numbered(i, 1)...); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	return <-failed
}
