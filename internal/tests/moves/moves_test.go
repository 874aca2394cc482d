// Package moves runs routes over replicas, each a process of its own on loopback, that are killed, stopped or
// never return.
package moves

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

const (
	roleVariable = "MOVES_ROLE"
	topic        = "orders"
	moveAfter    = 2 * time.Second
	slack        = 15 * time.Second // a peer that is silent is given up after 30 s, if nothing moves before
	patience     = time.Minute
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "replica":
		replica()
	case "publisher":
		publisher()
	default:
		os.Exit(m.Run())
	}
}

// replica listens at MOVES_ADDRESS, and says what its handlers got: "got id duplicate tenure". With MOVES_HOLD they never
// ack.
func replica() {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: os.Getenv("MOVES_ADDRESS"), ConsumerGroup: "g", MaxInFlight: 16,
	}, nil)
	must(err)
	messages, err := sub.Subscribe(context.Background(), topic)
	must(err)
	fmt.Println("ready")
	for m := range messages {
		d, _ := buffstreams.DeliveryFromContext(m.Context())
		fmt.Println("got", m.UUID, d.MaybeDuplicate, d.Tenure)
		if os.Getenv("MOVES_HOLD") == "" {
			m.Ack()
		}
	}
}

// publisher publishes MOVES_COUNT messages to MOVES_ADDRESSES, or without an end if that is negative, from an outbox in
// MOVES_OUTBOX if that is set, and waits until all are handled. With MOVES_LIFE, which makes its ids its own, it says of each
// message that it was sent.
func publisher() {
	count, err := strconv.Atoi(os.Getenv("MOVES_COUNT"))
	must(err)
	policy, err := strconv.Atoi(os.Getenv("MOVES_POLICY"))
	must(err)
	cfg := buffstreams.PublisherConfig{
		Resolver: route.Static{topic: {
			Addresses: strings.Split(os.Getenv("MOVES_ADDRESSES"), ","), Policy: route.Policy(policy), HashKey: "key",
		}},
		Confirm: buffstreams.ConfirmReceived, PublishTimeout: patience,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MoveAfter: moveAfter}},
	}
	var logger watermill.LoggerAdapter = watermill.NopLogger{}
	if os.Getenv("MOVES_LOG") != "" {
		logger = watermill.NewStdLoggerWithOut(os.Stderr, false, false)
	}
	if dir := os.Getenv("MOVES_OUTBOX"); dir != "" {
		ob, err := outbox.Open(outbox.Config{Dir: dir})
		must(err)
		cfg.Outbox = ob
	}
	pub, err := buffstreams.NewPublisher(cfg, logger)
	must(err)
	life := os.Getenv("MOVES_LIFE")
	for i := 0; i != count; i++ {
		m := message.NewMessage(life+"."+strconv.Itoa(i), []byte("x"))
		m.Metadata.Set("key", fmt.Sprint(i%100))
		must(pub.Publish(topic, m))
		if life != "" {
			fmt.Println("sent", m.UUID)
			time.Sleep(time.Millisecond)
		}
	}
	fmt.Println("published")
	must(pub.Drain(context.Background()))
	fmt.Println("drained")
	select {}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// process is a child.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{} // closed when all that it said is in lines

	mu    sync.Mutex // guards lines
	lines []string
}

func start(t *testing.T, role string, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() { // ends with the process
		defer close(p.ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process, and returns when all that it said is known.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
	_ = p.cmd.Wait()
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// await waits until the process has said a line that begins so.
func (p *process) await(prefix string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return len(p.said(prefix)) > 0 }, patience, 2*time.Millisecond, "it says %s", prefix)
}

func (p *process) said(prefix string) (lines []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if strings.HasPrefix(l, prefix) {
			lines = append(lines, l)
		}
	}
	return lines
}

// world is three replicas, of which the first never acks.
type world struct {
	t         *testing.T
	addresses []string
	replicas  []*process
	env       []string // of publishers
}

func newWorld(t *testing.T, policy route.Policy, count int, env ...string) *world {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w := &world{t: t}
	for i := range 3 {
		w.addresses = append(w.addresses, testkit.FreeAddress(t))
		hold := ""
		if i == 0 {
			hold = "1"
		}
		w.replicas = append(w.replicas, start(t, "replica", "MOVES_ADDRESS="+w.addresses[i], "MOVES_HOLD="+hold))
	}
	for _, r := range w.replicas {
		r.await("ready")
	}
	w.env = append(env, "MOVES_ADDRESSES="+strings.Join(w.addresses, ","), fmt.Sprint("MOVES_COUNT=", count),
		fmt.Sprint("MOVES_POLICY=", int(policy)))
	return w
}

// account ends the replicas, and checks that each message was handled by a replica that lives, and that what came to it after another had it is
// marked.
func (w *world) account(count int) (duplicates, marked int) {
	w.t.Helper()
	for _, r := range w.replicas {
		r.kill() // the publisher can know what they said before this process does
	}
	held := map[string]bool{}
	for _, l := range w.replicas[0].said("got") {
		held[strings.Fields(l)[1]] = true
	}
	handled := map[string]int{}
	for _, r := range w.replicas[1:] {
		for _, l := range r.said("got") {
			f := strings.Fields(l)
			handled[f[1]]++
			if f[2] == "true" {
				marked++
			}
			if held[f[1]] {
				duplicates++
				require.Equal(w.t, "true", f[2], "message %s was with a handler of another replica", f[1])
			}
		}
	}
	require.Len(w.t, handled, count, "all are handled")
	for id, n := range handled {
		require.Equal(w.t, 1, n, "message %s", id)
	}
	return duplicates, marked
}

// never is a replica that goes and never returns: its messages are handled elsewhere when MoveAfter is over.
func never(t *testing.T, policy route.Policy, signal syscall.Signal) {
	const count = 2000
	w := newWorld(t, policy, count)
	pub := start(t, "publisher", w.env...)
	pub.await("published")
	w.replicas[0].await("got")
	began := time.Now()
	w.replicas[0].signal(signal)
	pub.await("drained")
	took := time.Since(began)
	duplicates, marked := w.account(count)
	t.Logf("all handled after %v; %d had been with a handler, %d are marked", took, duplicates, marked)
	require.Less(t, took, moveAfter+slack)
}

func TestMoves_ReplicaIsKilledAndNeverReturns(t *testing.T) {
	for name, policy := range map[string]route.Policy{"RoundRobin": route.RoundRobin, "LeastPending": route.LeastPending, "Hash": route.Hash} {
		t.Run(name, func(t *testing.T) { never(t, policy, syscall.SIGKILL) })
	}
}

func TestMoves_ReplicaIsSilent(t *testing.T) {
	for name, policy := range map[string]route.Policy{"RoundRobin": route.RoundRobin, "Hash": route.Hash} {
		t.Run(name, func(t *testing.T) { never(t, policy, syscall.SIGSTOP) })
	}
}

// TestMoves_OutboxAcrossAKillOfThePublisher: the replica never returns, and the publisher is killed in the middle.
func TestMoves_OutboxAcrossAKillOfThePublisher(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "silent": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			const count = 2000
			w := newWorld(t, route.RoundRobin, count, "MOVES_OUTBOX="+t.TempDir())
			pub := start(t, "publisher", w.env...)
			pub.await("published")
			w.replicas[0].await("got")
			require.Empty(t, pub.said("drained"))
			w.replicas[0].signal(signal)
			pub.signal(syscall.SIGKILL)
			_ = pub.cmd.Wait()
			began := time.Now()
			again := start(t, "publisher", append(w.env, "MOVES_COUNT=0")...)
			again.await("drained")
			took := time.Since(began)
			duplicates, marked := w.account(count)
			t.Logf("all handled after %v; %d had been with a handler, %d are marked", took, duplicates, marked)
			require.Less(t, took, moveAfter+slack)
		})
	}
}
