package tests

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/amqp"
	"github.com/buffstreams/watermill-buffstreams/engines/kafka"
	"github.com/buffstreams/watermill-buffstreams/engines/nats"
	"github.com/buffstreams/watermill-buffstreams/engines/postgres"
	"github.com/buffstreams/watermill-buffstreams/engines/redis"
)

func drivers() []engines.Driver {
	return []engines.Driver{nats.Driver, kafka.Driver, redis.Driver, amqp.Driver, postgres.Driver}
}

// shared are the servers that all tests of a run use, each started by the first test that needs it.
var shared struct {
	mu    sync.Mutex
	urls  map[string]string
	errs  map[string]error
	stops []func()
}

// sharedServer returns the address of a server of an engine. The test is skipped, and says why, where there is none.
func sharedServer(t *testing.T, engine string, start func() (string, func(), error)) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.urls == nil {
		shared.urls, shared.errs = map[string]string{}, map[string]error{}
	}
	if _, started := shared.urls[engine]; !started {
		u, stop, err := start()
		shared.urls[engine], shared.errs[engine] = u, err
		if stop != nil {
			shared.stops = append(shared.stops, stop)
		}
	}
	if err := shared.errs[engine]; err != nil {
		t.Skipf("there is no server of %s: %v", engine, err)
	}
	return shared.urls[engine]
}

func stopServers() {
	for _, stop := range shared.stops {
		stop()
	}
}

// ports guards the port that freePort looks at next.
var ports struct {
	mu   sync.Mutex
	next int
}

// freePort is a port of loopback that is free, for servers that cannot say which one they got. It is none of those that the system
// gives to connections: between this call and the server's start, another test's connection could get it.
func freePort() (int, error) {
	const first, last = 20_000, 32_000
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.next == 0 {
		ports.next = first + os.Getpid()*97%(last-first)
	}
	var failed error
	for range last - first {
		if ports.next++; ports.next >= last {
			ports.next = first
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports.next))
		if err == nil {
			return ports.next, l.Close()
		}
		failed = err
	}
	return 0, failed
}

// natsNode is one node of a cluster that a test can kill and start again.
type natsNode struct {
	options *server.Options
	server  *server.Server
}

// natsCluster are three nodes of NATS with JetStream.
type natsCluster []*natsNode

func startNATS() (natsCluster, error) {
	dir, err := os.MkdirTemp("", "engines-nats-")
	if err != nil {
		return nil, err
	}
	var nodes natsCluster
	var routes []*url.URL
	for i := range 3 {
		port, err1 := freePort()
		cluster, err2 := freePort()
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("no ports: %w, %w", err1, err2)
		}
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", cluster)})
		nodes = append(nodes, &natsNode{options: &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: filepath.Join(dir, fmt.Sprint(i)),
			NoLog: true, NoSigs: true, MaxPayload: 8 << 20, JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 8 << 30,
			Cluster: server.ClusterOpts{Name: "engines", Host: "127.0.0.1", Port: cluster},
		}})
	}
	for _, n := range nodes {
		n.options.Routes = routes
		if err := n.start(); err != nil {
			return nil, err
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // real elections take real time
		ready := 0
		for _, n := range nodes {
			if n.server.ReadyForConnections(time.Second) && n.server.JetStreamIsCurrent() {
				ready++
			}
		}
		if ready == len(nodes) {
			return nodes, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of 3 nodes are ready after 30 s", ready)
		}
	}
}

func (n *natsNode) start() error {
	s, err := server.NewServer(n.options.Clone())
	if err != nil {
		return err
	}
	n.server = s
	go s.Start() // ends with the server
	return nil
}

func (c natsCluster) hosts() string {
	var hosts []string
	for _, n := range c {
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", n.options.Port))
	}
	return strings.Join(hosts, ",")
}

func (n *natsNode) stop() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

func (c natsCluster) stop() {
	for _, n := range c {
		n.server.Shutdown()
	}
	for _, n := range c {
		n.server.WaitForShutdown()
	}
	_ = os.RemoveAll(filepath.Dir(c[0].options.StoreDir))
}

func natsServer(t *testing.T) string {
	return sharedServer(t, "nats", func() (string, func(), error) {
		c, err := startNATS()
		if err != nil {
			return "", nil, err
		}
		return c.hosts(), c.stop, nil
	})
}

// kafkaServer is KAFKA_BROKERS, or kfake: Kafka's protocol in one process, without replication.
func kafkaServer(t *testing.T) string {
	return sharedServer(t, "kafka", func() (string, func(), error) {
		if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
			return brokers, nil, nil
		}
		c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.DefaultNumPartitions(4), kfake.GroupMinSessionTimeout(time.Second))
		if err != nil {
			return "", nil, err
		}
		return strings.Join(c.ListenAddrs(), ","), c.Close, nil
	})
}

// shortDir is a directory whose path is short enough for a socket.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "eng")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
