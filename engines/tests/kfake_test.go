package tests

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func kafkaOutage(t *testing.T) *outage {
	port, err := freePort()
	require.NoError(t, err)
	env := []string{"TEST_PORT=" + strconv.Itoa(port), "TEST_DIR=" + filepath.Join(shortDir(t), "data")}
	start := func() *child {
		c := startChild(t, "kafka", env...)
		require.Equal(t, "ready", c.next(t))
		return c
	}
	c := start()
	return &outage{
		subject: subjectAt("kafka", fmt.Sprintf("kafka://127.0.0.1:%d", port)),
		signal:  func(s syscall.Signal) { _ = c.Process.Signal(s) },
		kill: func() { // between storing and saying so, the worst moment
			require.NoError(t, c.Process.Signal(syscall.SIGUSR1))
			require.Equal(t, "silent", c.next(t))
			c.kill()
		},
		restart: func() { c = start() },
	}
}

// runKafkaChild is kfake in a process of its own, with its data on disk, until it is killed. After SIGUSR1 it stores what comes, and
// answers nothing.
func runKafkaChild() error {
	port, _ := strconv.Atoi(os.Getenv("TEST_PORT"))
	dir := os.Getenv("TEST_DIR")
	if err := restoreSequences(dir); err != nil {
		return err
	}
	var answers muted
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DefaultNumPartitions(4), kfake.GroupMinSessionTimeout(time.Second),
		kfake.DataDir(dir), kfake.SyncWrites(), kfake.ListenFn(answers.listen))
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	fmt.Println("ready")
	<-asked
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.OffsetCommit} {
		c.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			answers.off.Store(true)
			return nil, nil, false // kfake stores it
		})
	}
	select {}
}

// muted are the answers of a server, which are lost from a moment on.
type muted struct {
	off  atomic.Bool
	once sync.Once // for a line that says so, after the first
}

func (m *muted) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return &mutedListener{l, m}, err
}

type mutedListener struct {
	net.Listener
	*muted
}

func (l *mutedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &mutedConn{conn, l.muted}, err
}

type mutedConn struct {
	net.Conn
	*muted
}

func (c *mutedConn) Write(p []byte) (int, error) {
	if !c.off.Load() {
		return c.Conn.Write(p)
	}
	c.once.Do(func() { fmt.Println("silent") })
	return len(p), nil
}

// sequences are the last batches of a producer in a partition, as kfake has them in a file.
type sequences struct {
	PID     int64    `json:"pid"`
	Topic   string   `json:"topic"`
	Part    int      `json:"partition"`
	Entries [5]batch `json:"entries"`
	Count   int      `json:"count"`
	At      int      `json:"at"`
	Epoch   int16    `json:"epoch"`
	Seen    bool     `json:"seen"`
	NextSeq int32    `json:"next_seq"`
}

type batch struct {
	FirstSeq int32 `json:"first_seq"`
	NextSeq  int32 `json:"next_seq"`
	Offset   int64 `json:"offset"`
}

func (s *sequences) add(b kmsg.RecordBatch) {
	if b.ProducerEpoch != s.Epoch {
		*s = sequences{PID: s.PID, Topic: s.Topic, Part: s.Part}
	}
	s.Epoch, s.Seen = b.ProducerEpoch, true
	s.NextSeq = int32((int64(b.FirstSequence) + int64(b.NumRecords)) % math.MaxInt32)
	s.Entries[s.At] = batch{b.FirstSequence, s.NextSeq, b.FirstOffset}
	s.At, s.Count = (s.At+1)%len(s.Entries), min(s.Count+1, len(s.Entries))
}

// restoreSequences reads the last batches of all producers from the log, as Kafka's brokers do after a kill, so that one that comes
// again is not stored again. kfake writes them when it is closed, and forgets them where it is killed.
func restoreSequences(dir string) error {
	partitions, err := filepath.Glob(filepath.Join(dir, "partitions", "*"))
	if err != nil || len(partitions) == 0 {
		return err
	}
	var all []*sequences
	for _, partition := range partitions {
		found, err := sequencesOf(partition)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	data, err := json.Marshal(map[string]any{"version": 1, "windows": all})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "seq_windows.json"), data, 0o600)
}

// sequencesOf reads the segments of a partition, the oldest first, up to a batch that is not whole.
func sequencesOf(partition string) ([]*sequences, error) {
	name := filepath.Base(partition)
	hyphen := strings.LastIndexByte(name, '-')
	topic, err1 := url.PathUnescape(name[:hyphen])
	number, err2 := strconv.Atoi(name[hyphen+1:])
	segments, err3 := filepath.Glob(filepath.Join(partition, "*.dat"))
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return nil, err
		}
	}
	first := func(segment string) int {
		offset, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(segment), ".dat"))
		return offset
	}
	slices.SortFunc(segments, func(a, b string) int { return first(a) - first(b) })
	var all []*sequences
	byProducer := map[int64]*sequences{}
	for _, segment := range segments {
		log, err := os.ReadFile(segment)
		if err != nil {
			return nil, err
		}
		for {
			var b kmsg.RecordBatch
			if err := b.ReadFrom(log); err != nil {
				break
			}
			log = log[12+b.Length:]
			s := byProducer[b.ProducerID]
			if s == nil {
				s = &sequences{PID: b.ProducerID, Topic: topic, Part: number}
				byProducer[b.ProducerID], all = s, append(all, s)
			}
			s.add(b)
		}
	}
	return all, nil
}
