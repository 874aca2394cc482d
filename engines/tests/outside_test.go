package tests

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// outside is set by make bench_outside.
const outside = "BENCH_OUTSIDE"

// natsCommand is the version of NATS' command that is compared with.
const natsCommand = "github.com/nats-io/natscli/nats@v0.5.1"

const (
	outsideMessages = 1_500_000
	outsideSize     = 128
	agreed          = 0.01 // of what is counted outside
)

// TestOutside_BenchBesideNATSBench runs bench and `nats bench` in turns, each with a count from outside: of the messages, and of
// the time from the first to the last. What bench says must agree with that; what nats bench says is in the log beside it.
func TestOutside_BenchBesideNATSBench(t *testing.T) {
	if os.Getenv(outside) == "" {
		t.Skip("make bench_outside")
	}
	bin := t.TempDir()
	build := func(what, dir string, args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		if dir == "" { // a module of its own, outside of this workspace
			cmd.Dir, cmd.Env = bin, append(os.Environ(), "GOBIN="+bin, "GOWORK=off", "GOFLAGS=")
		}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return filepath.Join(bin, what)
	}
	own := build("buffstreams", "../../cmd", "build", "-o", filepath.Join(bin, "buffstreams"), "./buffstreams")
	other := build("nats", "", "install", natsCommand)
	for range 3 {
		benchNATS(t, other)
		benchOwn(t, own)
	}
}

// counter counts messages, and remembers when the first and the last came.
type counter struct {
	mu          sync.Mutex // guards the fields below
	n           int
	first, last time.Time
}

func (c *counter) add() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n++; c.n == 1 {
		c.first = now
	}
	c.last = now
}

// rate is of the messages behind the first, which has begun the time.
func (c *counter) rate() (n int, perSecond float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n, float64(c.n-1) / c.last.Sub(c.first).Seconds()
}

// benchOwn has this process count what bench publishes.
func benchOwn(t *testing.T, binary string) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ConsumerGroup: "g", MaxInFlight: 256}, nil)
	require.NoError(t, err)
	messages, err := sub.Subscribe(context.Background(), "127.0.0.1:0/t")
	require.NoError(t, err)
	at, err := sub.Addr("127.0.0.1:0/t")
	require.NoError(t, err)
	counted, warm := &counter{}, &counter{}
	var counting sync.WaitGroup
	counting.Go(func() { // ends with the Subscriber
		for msg := range messages {
			if msg.Metadata.Get("buffstreams_bench_warmup") != "" {
				warm.add()
			} else {
				counted.add()
			}
			msg.Ack()
		}
	})
	cmd := exec.Command(binary, "bench", "pub", at.String()+"/t", "--count", strconv.Itoa(outsideMessages), "--size", strconv.Itoa(outsideSize),
		"--batch", "100", "--confirm", "enqueued", "--json")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, sub.Close())
	counting.Wait()
	var r struct {
		WarmUp  int `json:"warmup_messages"`
		Publish struct {
			Messages int
			Rate     float64
		}
	}
	require.NoError(t, json.Unmarshal(out, &r))
	n, rate := counted.rate()
	t.Logf("bench pub: %d messages, %.0f/s; counted outside: %d, %.0f/s (%+.2f %%)", r.Publish.Messages, r.Publish.Rate, n, rate, 100*(r.Publish.Rate/rate-1))
	require.Equal(t, n, r.Publish.Messages)
	require.Equal(t, warm.n, r.WarmUp)
	require.InEpsilon(t, rate, r.Publish.Rate, agreed)
}

// natsRate is in the line of nats bench.
var natsRate = regexp.MustCompile(`([\d,]+) msgs/sec`)

// benchNATS has the server count what nats bench publishes.
func benchNATS(t *testing.T, binary string) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	require.NoError(t, err)
	s.Start()
	defer s.Shutdown()
	require.True(t, s.ReadyForConnections(30*time.Second))
	cmd := exec.Command(binary, "bench", "pub", "t", "--server", s.ClientURL(), "--msgs", strconv.Itoa(outsideMessages),
		"--size", strconv.Itoa(outsideSize)+"B", "--no-progress")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	v, err := s.Varz(nil)
	require.NoError(t, err)
	said := natsRate.FindStringSubmatch(string(out))
	require.NotEmpty(t, said, "%s", out)
	t.Logf("nats bench pub: %d messages, %s/s; the server has counted %d", outsideMessages, said[1], v.InMsgs)
	require.EqualValues(t, outsideMessages, v.InMsgs)
}

// TestOutside_LatencyIsThatOfTheWay: with a relay that holds up each way for a known time, the latency is that time.
func TestOutside_LatencyIsThatOfTheWay(t *testing.T) {
	if os.Getenv(outside) == "" {
		t.Skip("make bench_outside")
	}
	const held = 400 * time.Millisecond
	binary := filepath.Join(t.TempDir(), "buffstreams")
	build := exec.Command("go", "build", "-o", binary, "./buffstreams")
	build.Dir = "../../cmd"
	text, err := build.CombinedOutput()
	require.NoError(t, err, "%s", text)
	port, err := freePort()
	require.NoError(t, err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	reply := exec.Command(binary, "reply", address+"/echo", "--echo")
	reply.Stderr = os.Stderr
	require.NoError(t, reply.Start())
	defer func() {
		_ = reply.Process.Kill()
		_ = reply.Wait()
	}()
	relay := slowRelay(t, address, held)
	out, err := exec.Command(binary, "latency", relay+"/echo", "--rate", "200", "--duration", "5s", "--warmup", "2s", "--json").Output()
	require.NoError(t, err)
	var r struct {
		Sent, Received int
		Rate           float64
		Latency        struct {
			P50 float64 `json:"p50_ms"`
		}
	}
	require.NoError(t, json.Unmarshal(out, &r))
	way := float64(held) / float64(time.Millisecond) // requests are held up; replies come over a connection of their own
	t.Logf("latency: %d of %d at %.1f/s, median %.2f ms; the way takes %.0f ms", r.Received, r.Sent, r.Rate, r.Latency.P50, way)
	require.Equal(t, 1000, r.Sent)
	require.Equal(t, 1000, r.Received)
	require.InEpsilon(t, 200, r.Rate, agreed)
	require.InEpsilon(t, way, r.Latency.P50, agreed)
}

// slowRelay passes connections on to an address, and what a client sends a fixed time later.
func slowRelay(t *testing.T, to string, held time.Duration) (at string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with the listener
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			peer, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, peer); _ = client.Close() }() // ends with a connection
			go delay(client, peer, held)                                     // ends with a connection
		}
	}()
	return ln.Addr().String()
}

// chunk is what has come at one time.
type chunk struct {
	data []byte
	at   time.Time
}

func delay(from, to net.Conn, held time.Duration) {
	chunks := make(chan chunk, 100_000)
	go func() { // ends with the connection
		defer close(chunks)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			chunks <- chunk{buf[:n], time.Now()}
		}
	}()
	for c := range chunks {
		time.Sleep(time.Until(c.at.Add(held))) // the subject is real time
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
}
