//go:build linux

// Package resources takes away what a process lives on: descriptors, disk, memory. What needs limits of its own runs in a
// child process, which is this test binary.
//
//	CONNECTIONS  how many TestConnections_Many opens; default 10,000
//	CHURN        how often TestChurn connects and closes; default 3,000
package resources

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// patience is how long what must happen may take on a loaded machine.
const patience = 30 * time.Second

// childCommand as the first argument makes this binary run a scenario.
const childCommand = "resources-child"

// scenarios are what children do, with the rest of their arguments. What they print on stderr goes into the test's log.
var scenarios = map[string]func(args []string) error{
	"descriptors at accept": func([]string) error { return withoutDescriptors(1) },
	"descriptors at dial":   func([]string) error { return withoutDescriptors(0) },
	"disk":                  func(args []string) error { return withoutDisk(args[0]) },
	"consumers":             func(args []string) error { return withSlowConsumers(args[0]) },
	"connections":           func(args []string) error { return openConnections(args[0], args[1]) },
	"idle connections":      func(args []string) error { return idleConnections(args[0], args[1]) },
}

func TestMain(m *testing.M) {
	if len(os.Args) >= 3 && os.Args[1] == childCommand {
		if err := scenarios[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testkit.Main(m)
}

// child is a process that runs a scenario.
func child(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, os.Args[0], append([]string{childCommand}, args...)...)
}

// run runs a scenario to its end.
func run(t *testing.T, cmd *exec.Cmd) {
	out, err := cmd.CombinedOutput()
	t.Logf("%s", strings.TrimSpace(string(out)))
	require.NoError(t, err)
}

// tell prints a figure into the test's log.
func tell(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// quick makes ends notice and come back fast.
func quick() buffstreams.AckedConfig {
	return buffstreams.AckedConfig{
		HandshakeTimeout: 300 * time.Millisecond,
		Reconnect:        &buffstreams.ReconnectConfig{InitialInterval: 5 * time.Millisecond, MaxInterval: 50 * time.Millisecond},
	}
}

// counter is a logger that counts errors.
type counter struct {
	watermill.NopLogger
	errors atomic.Int64
}

func (c *counter) Error(string, error, watermill.LogFields) { c.errors.Add(1) }

// numbered makes messages whose payloads are numbers, from first on.
func numbered(first, count int) []*message.Message {
	all := make([]*message.Message, count)
	for i := range all {
		all[i] = message.NewMessage(watermill.NewShortUUID(), []byte(strconv.Itoa(first+i)))
	}
	return all
}

// expect receives and acks the messages first to last-1, in order, and nothing else.
func expect(messages <-chan *message.Message, first, last int) error {
	deadline := time.After(patience)
	for n := first; n < last; n++ {
		select {
		case msg := <-messages:
			if string(msg.Payload) != strconv.Itoa(n) {
				return fmt.Errorf("message %.40q came where %d was due", msg.Payload, n)
			}
			msg.Ack()
		case <-deadline:
			return fmt.Errorf("message %d of %d did not come", n, last)
		}
	}
	return nil
}

// subscribe listens on a port of the system's choice.
func subscribe(cfg buffstreams.ManagerConfig) (*buffstreams.Subscriber, string, <-chan *message.Message, error) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ManagerConfig: cfg, ConsumerGroup: "group"}, nil)
	if err != nil {
		return nil, "", nil, err
	}
	const anywhere = "127.0.0.1:0/numbers"
	messages, err := sub.Subscribe(context.Background(), anywhere)
	if err != nil {
		return nil, "", nil, err
	}
	address, err := sub.Addr(anywhere)
	return sub, fmt.Sprintf("%v/numbers", address), messages, err
}

// toListener dials the listener of a topic, whatever address is asked for, so that one listener can have any number of
// links. Each comes from one of a few addresses, as there are limits for each.
func toListener(topic string) pool.DialFunc {
	listener, _, _ := strings.Cut(topic, "/")
	var turn atomic.Uint32
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(turn.Add(1)%8+1))}}
		return d.DialContext(ctx, network, listener)
	}
}

// status is a figure of /proc/PID/status in KiB, such as VmHWM, the most memory that was ever resident.
func status(pid, name string) (int, error) {
	f, err := os.Open("/proc/" + pid + "/status")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("no %s of process %s", name, pid)
}

// limitDescriptors sets how many descriptors this process may have, and fails if the system does not permit it.
func limitDescriptors(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Max < n {
		return fmt.Errorf("the limit of open files is %d, and %d are needed", limit.Max, n)
	}
	limit.Cur = n
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
