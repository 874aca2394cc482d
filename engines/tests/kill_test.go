package tests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runNATSNode is a node of a cluster in a process of its own, until it is killed.
func runNATSNode() error {
	port, _ := strconv.Atoi(os.Getenv("TEST_PORT"))
	cluster, _ := strconv.Atoi(os.Getenv("TEST_CLUSTER_PORT"))
	options := &server.Options{
		ServerName: os.Getenv("TEST_NAME"), Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: os.Getenv("TEST_DIR"), NoLog: true,
		JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 16 << 30,
		Cluster: server.ClusterOpts{Name: "kill", Host: "127.0.0.1", Port: cluster},
	}
	for route := range strings.SplitSeq(os.Getenv("TEST_ROUTES"), ",") {
		options.Routes = append(options.Routes, &url.URL{Scheme: "nats", Host: route})
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	go s.Start()
	for !s.ReadyForConnections(time.Second) || !s.JetStreamIsCurrent() {
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println("ready")
	s.WaitForShutdown()
	return nil
}

// nodeProcesses are three nodes that can be killed.
type nodeProcesses struct {
	t        *testing.T
	env      [3][]string
	children [3]*child
	hosts    string
}

func startNodeProcesses(t *testing.T) *nodeProcesses {
	dir, err := os.MkdirTemp("", "engines-kill-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var ports, clusters []string
	for range 6 {
		port, err := freePort()
		require.NoError(t, err)
		if len(ports) < 3 {
			ports = append(ports, strconv.Itoa(port))
		} else {
			clusters = append(clusters, strconv.Itoa(port))
		}
	}
	n := &nodeProcesses{t: t, hosts: "127.0.0.1:" + strings.Join(ports, ",127.0.0.1:")}
	for i := range n.env {
		n.env[i] = []string{
			"TEST_PORT=" + ports[i], "TEST_CLUSTER_PORT=" + clusters[i], "TEST_NAME=k" + strconv.Itoa(i), "TEST_DIR=" + filepath.Join(dir, strconv.Itoa(i)),
			"TEST_ROUTES=127.0.0.1:" + strings.Join(clusters, ",127.0.0.1:"),
		}
		n.children[i] = startChild(t, "nats-node", n.env[i]...)
	}
	for _, c := range n.children {
		require.Equal(t, "ready", c.next(t))
	}
	return n
}

// killOne kills a node and starts it again.
func (n *nodeProcesses) killOne() {
	i := rand.IntN(3)
	n.children[i].kill()
	n.children[i] = startChild(n.t, "nats-node", n.env[i]...)
	require.Equal(n.t, "ready", n.children[i].next(n.t))
}

// TestKillEverything is E3: nodes of JetStream killed and started again, and the bridge too, while messages flow. Nothing is lost,
// nothing is twice in the stream, and each key keeps its order. ENGINES_KILL is how many messages.
func TestKillEverything(t *testing.T) {
	n, kills, keys := 20_000, 2, 200
	if given, err := strconv.Atoi(os.Getenv("ENGINES_KILL")); err == nil {
		n, kills = given, 10
	} else if os.Getenv(withServers) == "" {
		t.Skip("make engines_kill")
	}
	if given, err := strconv.Atoi(os.Getenv("KILLS_EACH")); err == nil {
		kills = given
	}
	nodes := startNodeProcesses(t)
	s := subjects()
	from := &fixture{T: t, subject: s[3], base: s[3].base(t), topic: "from-" + watermill.NewShortUUID()}
	to := &fixture{T: t, subject: s[2], base: "nats://" + nodes.hosts, topic: "to-" + watermill.NewShortUUID()}
	source := from.open("key=k")
	published := make(chan struct{})
	go func() { // ends before the test, which waits
		defer close(published)
		from.publish(source, 0, n, keys)
	}()
	env := []string{
		"TEST_FROM=" + from.url(""), "TEST_TO=" + to.url("dedupe_window=1h"), "TEST_TOPIC=" + from.topic, "TEST_TO_TOPIC=" + to.topic,
		"TEST_IN_FLIGHT=" + strconv.Itoa(window),
	}
	b := startChild(t, "bridge", env...)
	forwarded := 0
	step := n / (2*kills + 1)
	heard := time.Now()
	for kill := 1; ; {
		var line string
		alive := true
		select {
		case line, alive = <-b.lines:
			heard = time.Now()
		case <-time.After(2 * time.Second): // what a bridge said last is lost with it, so only the stream knows the end
			if streamLength(t, nodes.hosts, to.topic) >= n {
				line = "end"
				break
			}
			require.Less(t, time.Since(heard), 2*patience, "the bridge stands still: %d of %d", forwarded, n)
			continue
		}
		if line == "end" {
			break
		}
		if !alive {
			b = startChild(t, "bridge", env...) // as a supervisor does: the cluster was away for longer than it waits at its start
			continue
		}
		more, _ := strconv.Atoi(line)
		forwarded += more
		if kill <= 2*kills && forwarded >= kill*step {
			if kill%2 == 0 {
				b.kill()
				b = startChild(t, "bridge", env...)
			} else {
				nodes.killOne()
			}
			t.Logf("kill %d after %d", kill, forwarded)
			kill++
		}
	}
	<-published
	assertStream(t, nodes.hosts, to.topic, n)
}

func streamOf(t *testing.T, hosts, topic string) (jetstream.Stream, func()) {
	t.Helper()
	nc, err := natsgo.Connect(hosts, natsgo.MaxReconnects(-1), natsgo.RetryOnFailedConnect(true))
	require.NoError(t, err)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	var stream jetstream.Stream
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		stream, err = js.Stream(ctx, topic)
		return err == nil
	}, patience, 100*time.Millisecond)
	return stream, nc.Close
}

func streamLength(t *testing.T, hosts, topic string) int {
	stream, closeConn := streamOf(t, hosts, topic)
	defer closeConn()
	return int(stream.CachedInfo().State.Msgs)
}

// assertStream reads all of a stream: n messages, none twice, in order by key.
func assertStream(t *testing.T, hosts, topic string, n int) {
	stream, closeConn := streamOf(t, hosts, topic)
	defer closeConn()
	consumer, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	messages, err := consumer.Messages()
	require.NoError(t, err)
	defer messages.Stop()
	total := int(stream.CachedInfo().State.Msgs)
	last, disorder, seen := map[string]int{}, 0, make([]bool, n)
	twice := 0
	for range total {
		msg, err := messages.Next()
		require.NoError(t, err)
		number, err := strconv.Atoi(string(msg.Data()))
		require.NoError(t, err)
		if seen[number] {
			twice++
		}
		seen[number] = true
		key := msg.Headers().Get("k")
		if before, ok := last[key]; ok && before >= number {
			disorder++
		}
		last[key] = number
	}
	lost := 0
	for _, there := range seen {
		if !there {
			lost++
		}
	}
	t.Logf("%d in the stream: %d lost, %d twice, %d out of order", total, lost, twice, disorder)
	assert.Zero(t, lost)
	assert.Zero(t, twice)
	assert.Zero(t, disorder)
}
