package hosts

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// roleEnv makes the test binary a replica at the address that it holds.
const roleEnv = "HOSTS_REPLICA"

func TestMain(m *testing.M) {
	if address := os.Getenv(roleEnv); address != "" {
		if err := replica(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	report.print(os.Stdout)
	os.Exit(code)
}

// replica subscribes, and writes a line for each message that it has handled: its payload. It ends cleanly with SIGTERM.
func replica(address string) error {
	work, err := time.ParseDuration(os.Getenv("HOSTS_WORK"))
	if err != nil {
		return err
	}
	inFlight, err := strconv.Atoi(os.Getenv("HOSTS_IN_FLIGHT"))
	if err != nil {
		return err
	}
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: address, ConsumerGroup: "g", MaxInFlight: inFlight, CloseTimeout: 5 * time.Second,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Insecure: true}},
	}, nil)
	if err != nil {
		return err
	}
	messages, err := sub.Subscribe(context.Background(), "orders")
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	if _, err := fmt.Fprintln(out, "listening"); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var mu sync.Mutex // guards out
	var handling sync.WaitGroup
	room := make(chan struct{}, inFlight)
	handling.Go(func() { // ends with the subscription
		for msg := range messages {
			d, _ := buffstreams.DeliveryFromContext(msg.Context())
			said := string(msg.Payload) + marks(d)
			say := func(line string) {
				mu.Lock()
				defer mu.Unlock()
				_, _ = fmt.Fprintln(out, line)
				_ = out.Flush()
			}
			if said != string(msg.Payload) {
				say("+" + said)
			}
			handle := func() {
				if work > 0 {
					time.Sleep(work)
				}
				say(said) // before the ack: what was handled is known even after a kill
				msg.Ack()
			}
			if inFlight == 1 || work == 0 {
				handle()
				continue
			}
			room <- struct{}{}
			handling.Go(func() { handle(); <-room })
		}
	})
	go func() { // ends with the test, and this process with it
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	err = sub.Close()
	handling.Wait()
	return err
}

// marks is what a line says of a delivery besides, where HOSTS_MARKS asks for it: whether it can come twice, and its tenure.
func marks(d buffstreams.Delivery) string {
	if os.Getenv("HOSTS_MARKS") == "" {
		return ""
	}
	return fmt.Sprintf(" %v %d", d.MaybeDuplicate || d.Redelivered, d.Tenure)
}

// host is a replica that a test starts, kills and starts again at one address.
type host struct {
	address  string
	work     time.Duration
	inFlight int
	handled  func(line string)
	inside   []string // the command that runs it in a network namespace; nil: in the test's own
	env      []string // besides

	cmd *exec.Cmd
	wg  sync.WaitGroup // the reader of its output
}

// start starts the process, and returns when it listens.
func (h *host) start(t testing.TB) {
	command := append(slices.Clone(h.inside), os.Args[0])
	h.cmd = exec.Command(command[0], command[1:]...)
	h.cmd.Env = append(os.Environ(), roleEnv+"="+h.address, "HOSTS_WORK="+h.work.String(), "HOSTS_IN_FLIGHT="+strconv.Itoa(h.inFlight))
	h.cmd.Env = append(h.cmd.Env, h.env...)
	h.cmd.Stderr = os.Stderr
	_, err := h.cmd.StdinPipe() // closed with this process: see replica
	require.NoError(t, err)
	out, err := h.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, h.cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the replica at %s has not started", h.address)
	h.wg.Go(func() { // ends with the process
		for lines.Scan() {
			h.handled(strings.TrimSpace(lines.Text()))
		}
	})
}

// stop stops the process (SIGSTOP), and returns when it has: until then it could still welcome a connection.
func (h *host) stop(t testing.TB) {
	require.NoError(t, h.cmd.Process.Signal(syscall.SIGSTOP))
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.cmd.Process.Pid))
		return err != nil || strings.Contains(string(b), ") T ") // there is no /proc elsewhere
	}, 10*time.Second, time.Millisecond)
}

// end sends a signal that ends the process, and waits for that.
func (h *host) end(sig os.Signal) {
	_ = h.cmd.Process.Signal(sig)
	h.wg.Wait()
	_ = h.cmd.Wait()
}
