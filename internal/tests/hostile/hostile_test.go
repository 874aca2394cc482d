// Package hostile has strangers attack listeners and publishers, beside a publisher and a subscriber that must not notice.
package hostile

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// localAddresses: the whole of 127.0.0.0/8 is this machine.
const localAddresses = runtime.GOOS == "linux"

const (
	memoryLimit = 16 << 20 // of each Manager
	mostHeap    = 2*memoryLimit + 64<<20
	leastShare  = 0.8
	mostLines   = 2 // of a log, for a hostile connection
	warmUp      = 10_000

	handshake = 5 * time.Second // what a machine that is busy besides takes as well
	silence   = 7 * time.Second
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == attackCommand { // this process is the strangers
		os.Exit(rage(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// connections is how many attacks are made: HOSTILE=100000 is the long run.
func connections(t *testing.T) (total, rate int) {
	total, rate = 10_000, 1000
	if testkit.RaceEnabled || testing.Short() {
		total, rate = 1000, 200
	}
	return int(testkit.EnvNumber(t, "HOSTILE", uint64(total))), rate
}

// site is what the strangers come to: listeners of both protocols, and the publishers that use them.
type site struct {
	log        *logWatch
	listening  *buffstreams.Manager
	publishing *buffstreams.Manager
	ear        *eavesdropper
	address    string
	pub        *buffstreams.Publisher
	flow       *flow
	plain      *plainSite

	mu      sync.Mutex
	seen    map[string]bool // messages of strangers
	again   []string        // that came twice
	strange int
}

func newSite(t *testing.T) *site {
	s := &site{log: newLogWatch(), ear: &eavesdropper{heard: make(chan *wire.Open, 1)}, seen: map[string]bool{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.address = ln.Addr().String()
	s.ear.address.Store(&s.address)
	s.listening, err = buffstreams.NewManager(buffstreams.ManagerConfig{
		Logger: s.log, Listen: func(string, string) (net.Listener, error) { return ln, nil },
		Acked: buffstreams.AckedConfig{
			MaxMessageSize: maxMessage, WindowMessages: windowCount, WindowBytes: 4 << 20, MemoryLimit: memoryLimit,
			HandshakeTimeout: handshake, WriteTimeout: 5 * time.Second, PingAfter: time.Second, DeadAfter: silence,
			MaxTopics: 256, MaxPublishers: 100, MaxStreams: 400, MaxConnectionsPerHost: 100,
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.listening.Close()) })
	s.publishing, err = buffstreams.NewManager(buffstreams.ManagerConfig{
		Logger: s.log, Dial: s.ear.dial,
		Acked: buffstreams.AckedConfig{
			MaxMessageSize: maxMessage, WindowMessages: windowCount, WindowBytes: 4 << 20, MemoryLimit: memoryLimit,
			HandshakeTimeout: handshake, WriteTimeout: 5 * time.Second, PingAfter: time.Second, DeadAfter: silence,
			Reconnect: &buffstreams.ReconnectConfig{InitialInterval: 20 * time.Millisecond, MaxInterval: 100 * time.Millisecond},
		},
	})
	require.NoError(t, err)
	s.pub, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: s.publishing}, s.log)
	require.NoError(t, err)
	t.Cleanup(func() { // before the listener: what is left undelivered is the strangers'
		_ = s.pub.Close()
		if err := s.publishing.Close(); !errors.Is(err, buffstreams.ErrUndelivered) {
			require.NoError(t, err)
		}
	})
	s.flow = newFlow(s.pub, s.address+"/"+flowTopic)
	subscribe(t, s.listening, s.log, s.flow.topic, "legitimate", s.flow.take)
	subscribe(t, s.listening, s.log, s.address+"/"+strangersTopic, "strangers", s.stranger)
	s.plain = newPlainSite(t, s.log)
	return s
}

// stranger takes what strangers publish where they may: each message once, however often they sent it.
func (s *site) stranger(msg *message.Message) {
	s.mu.Lock()
	s.strange++
	if s.seen[msg.UUID] && strings.Contains(msg.UUID, "#") && len(s.again) < 5 {
		s.again = append(s.again, msg.UUID)
	}
	s.seen[msg.UUID] = true
	s.mu.Unlock()
	msg.Ack()
}

// plainSite is a plain listener with a writer of its own.
type plainSite struct {
	listener *pool.Listener
	writer   *pool.Writer
	sent     uint64
	handled  atomic.Uint64
	disorder atomic.Int64
}

func newPlainSite(t *testing.T, log *logWatch) *plainSite {
	p := &plainSite{}
	var err error
	p.listener, err = pool.ListenTCP(pool.ListenerConfig{
		Address: "127.0.0.1:0", Callback: p.take, FrameTimeout: time.Second, Logger: log,
	})
	require.NoError(t, err)
	require.NoError(t, p.listener.StartListeningAsync())
	t.Cleanup(func() { _ = p.listener.Close() })
	p.writer, err = pool.DialTCP(pool.WriterConfig{Address: p.listener.Addr().String(), Logger: log})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.writer.Close() })
	return p
}

const plainMark = "a message of the legitimate writer "

func (p *plainSite) take(b []byte) error {
	if !strings.HasPrefix(string(b), plainMark) {
		return nil
	}
	if seq := binary.BigEndian.Uint64(b[len(plainMark):]); seq != p.handled.Add(1) {
		p.disorder.Add(1)
	}
	return nil
}

// run writes a message every millisecond until stop is closed.
func (p *plainSite) run(t *testing.T, stop <-chan struct{}) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-stop:
			return
		}
		p.sent++
		if _, err := p.writer.Write(binary.BigEndian.AppendUint64([]byte(plainMark), p.sent)); err != nil {
			t.Errorf("the legitimate writer: %v", err)
			return
		}
	}
}

// complete waits until everything that was written has come.
func (p *plainSite) complete(t *testing.T) {
	t.Helper()
	assert.Eventually(t, func() bool { return p.handled.Load() == p.sent }, 10*time.Second, 10*time.Millisecond,
		"%d of %d plain messages", p.handled.Load(), p.sent)
	assert.Zero(t, p.disorder.Load())
}

// strangers is the attacking process.
type strangers struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func callStrangers(t *testing.T, o orders) (*strangers, []string) {
	t.Helper()
	s := &strangers{cmd: exec.Command(os.Args[0], attackCommand)}
	var err error
	s.in, err = s.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	s.cmd.Stderr = os.Stderr
	require.NoError(t, s.cmd.Start())
	s.out = json.NewDecoder(bufio.NewReader(out))
	require.NoError(t, json.NewEncoder(s.in).Encode(o))
	return s, s.report(t).Listeners
}

// leave ends the process.
func (s *strangers) leave() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}

func (s *strangers) report(t *testing.T) (r report) {
	t.Helper()
	require.NoError(t, s.out.Decode(&r))
	return r
}

func (s *strangers) begin(t *testing.T) {
	_, err := io.WriteString(s.in, "go\n")
	require.NoError(t, err)
}

// feed publishes to traps until stop is closed: each always has something to get.
func (s *site) feed(t *testing.T, traps []string, stop <-chan struct{}) {
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: s.publishing, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond, PublishTimeout: time.Second,
	}, s.log)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = pub.Close() }() // undelivered, most of it
	for {
		for _, address := range traps {
			_ = pub.Publish(address+"/trap", message.NewMessage("trapped", nil)) // an error when the stream was refused
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-stop:
			return
		}
	}
}

func (s *site) victim(t *testing.T) victim {
	select {
	case o := <-s.ear.heard:
		return victim{Publisher: o.Publisher, Secret: o.Secret, Epoch: o.Epoch, Stream: o.Stream, Topic: o.Topic}
	case <-time.After(patience):
		require.Fail(t, "no Open was heard")
		return victim{}
	}
}

// TestHostile lets strangers come at a steady rate while a publisher sends at half of what it could. Each attack gets the
// answer that docs/protocol.md has for it; the publisher loses nothing, keeps its order, its connection and its rate; and
// nothing of the strangers stays.
func TestHostile(t *testing.T) {
	total, rate := connections(t)
	s := newSite(t)
	s.flow.during(t, 0, func() { // maps and buffers get their size
		require.Eventually(t, func() bool { return s.flow.handled.Load() > warmUp }, patience, time.Millisecond)
	})
	s.flow.complete(t)
	o := orders{Acked: s.address, Plain: s.plain.listener.Addr().String(), Victim: s.victim(t), Total: total, Rate: rate, Traps: 8}
	before := weigh()
	share := s.endure(t, o)
	if !testkit.RaceEnabled { // the detector's runs share the machine with other packages: they say nothing of rates
		for again := 0; share < leastShare && again < 2; again++ { // others may have needed the machine
			o.Total = min(total, 2*rate)
			share = s.endure(t, o)
		}
		assert.GreaterOrEqual(t, share, leastShare, "of the rate")
	}
	assert.EqualValues(t, 1, s.ear.dials.Load(), "connections of the legitimate publisher")
	s.newcomer(t)
	s.leavesNothing(t, before)
}

// endure measures what the flow can do, has it do half of that while strangers do their worst, and returns how much of
// the half was reached; of the half of what it can do afterwards, if that is less.
func (s *site) endure(t *testing.T, o orders) (share float64) {
	capacity := s.flow.capacity(t)
	s.flow.complete(t)
	enemy, traps := callStrangers(t, o)
	defer enemy.leave()
	lines := s.log.total()
	var r report
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.feed(t, traps, stop) }) // both end when stop is closed
	wg.Go(func() { s.plain.run(t, stop) })
	most := peak(stop)
	reached := s.flow.during(t, capacity/2, func() {
		enemy.begin(t)
		r = enemy.report(t)
	})
	close(stop)
	wg.Wait()
	share = reached / (capacity / 2)
	lines = s.log.total() - lines
	if share < leastShare { // others may need the machine more than they did before
		s.flow.complete(t)
		share = reached / (min(capacity, s.flow.capacity(t)) / 2)
	}

	s.judge(t, r)
	s.flow.complete(t)
	s.plain.complete(t)
	heap := <-most
	assert.LessOrEqual(t, heap, mostHeap, "live heap while attacked")
	assert.LessOrEqual(t, lines, mostLines*(r.Made+r.Caught), "lines in the logs")
	assert.Empty(t, s.log.bad, "lines that a peer broke or made long")
	t.Logf("%d attacks of %d kinds, and %d on publishers, in %.1f s (%d left out); %d messages of strangers, %d MiB live at most",
		r.Made, r.Kinds, r.Caught, r.Seconds, r.Skipped, s.strange, heap>>20)
	t.Logf("capacity %.0f messages/s, paced at half of it, %.0f reached: %.1f %%", capacity, reached, 100*share)
	t.Logf("%d lines in logs\n%s", lines, s.log.summary())
	return share
}

func (s *site) judge(t *testing.T, r report) {
	t.Helper()
	for name, wrong := range r.Wrong {
		t.Errorf("%s: %s", name, strings.Join(wrong, "; "))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	assert.Empty(t, s.again, "delivered twice")
	assert.NotZero(t, s.strange)
}

// newcomer is a publisher that nobody has heard of: strangers must not have taken its place for good.
func (s *site) newcomer(t *testing.T) {
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{PublishTimeout: patience}, s.log)
	require.NoError(t, err)
	assert.NoError(t, pub.Publish(s.flow.topic, message.NewMessage("newcomer", nil)))
	require.NoError(t, pub.Close())
}

func (s *site) leavesNothing(t *testing.T, before burden) {
	s.mu.Lock()
	clear(s.seen) // the test's own
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	<-ctx.Done() // slow strangers are given up by then, and links to traps wait to dial again
	before.goroutines += 3 * 8
	before.descriptors += 8
	settles(t, before, 16<<20)
}
