package tests

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	redisgo "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// fillable is an engine that a test can take the room of.
type fillable struct {
	*fixture
	fill, clear func()
	says        *driver.Cause // of what is published then; nil means driver.ErrFull
}

// smallDisk is a file system of so many MiB. The test is skipped where this process may not make one.
func smallDisk(t *testing.T, mib int) string {
	dir := shortDir(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0777", mib), "none", dir).CombinedOutput(); err != nil {
		t.Skipf("a small file system cannot be mounted: %s", out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir
}

// fillDisk writes a file until the disk is full, and returns what removes it.
func fillDisk(t *testing.T, dir string) (remove func()) {
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	require.NoError(t, err)
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	require.NoError(t, f.Close())
	return func() { require.NoError(t, os.Remove(name)) }
}

// oneNode is a node of NATS alone, with room for so many bytes in dir.
func oneNode(t *testing.T, dir string, room int64) *natsNode {
	port, err := freePort()
	require.NoError(t, err)
	n := &natsNode{options: &server.Options{
		ServerName: "alone", Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true, JetStreamMaxMemory: 1 << 20,
		JetStreamMaxStore: room,
	}}
	require.NoError(t, n.start())
	t.Cleanup(n.stop)
	require.True(t, n.server.ReadyForConnections(patience))
	return n
}

// ofNode is a fixture of a node alone.
func ofNode(t *testing.T, n *natsNode) *fixture {
	base := fmt.Sprintf("nats://127.0.0.1:%d", n.options.Port)
	f := &fixture{T: t, subject: subjectAt("nats", base), base: base, topic: "full-" + watermill.NewShortUUID()}
	f.always = "redeliver_after=5s&publish_timeout=2m"
	return f
}

// fillableStore is a JetStream of which all streams together have reached what the server may take.
func fillableStore(t *testing.T) *fillable {
	n := oneNode(t, t.TempDir(), 16<<20)
	f := ofNode(t, n)
	nc, err := natsgo.Connect(f.base)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return &fillable{f, func() {
		_, err := js.CreateStream(context.Background(), jetstream.StreamConfig{Name: "ballast"})
		require.NoError(t, err)
		for size := 1 << 19; size > 0; size /= 8 {
			for err = nil; err == nil; {
				_, err = js.Publish(context.Background(), "ballast", make([]byte, size), jetstream.WithRetryAttempts(0))
			}
		}
		t.Log(err)
	}, func() { require.NoError(t, js.DeleteStream(context.Background(), "ballast")) }, nil}
}

// fillableDisk is a JetStream alone, whose disk is full.
func fillableDisk(t *testing.T) *fillable {
	dir := smallDisk(t, 64)
	n := oneNode(t, dir, 1<<30)
	var remove func()
	return &fillable{ofNode(t, n), func() { remove = fillDisk(t, dir) }, func() {
		remove()
		n.stop() // a stream whose disk was full stores nothing more before
		require.NoError(t, n.start())
	}, driver.ErrUnreachable} // it does not answer
}

func fillables() map[string]func(*testing.T) *fillable {
	of := func(t *testing.T, name, base string) *fixture {
		return &fixture{T: t, subject: subjectAt(name, base), base: base, topic: "full-" + watermill.NewShortUUID()}
	}
	return map[string]func(*testing.T) *fillable{
		"nats": func(t *testing.T) *fillable { // the stream's limit
			f := of(t, "nats", "nats://"+natsServer(t))
			nc, err := natsgo.Connect(f.base)
			require.NoError(t, err)
			t.Cleanup(nc.Close)
			js, err := jetstream.New(nc)
			require.NoError(t, err)
			limit := func(bytes int64) {
				_, err := js.UpdateStream(context.Background(), jetstream.StreamConfig{
					Name: f.topic, Subjects: []string{f.topic}, MaxBytes: bytes, Discard: jetstream.DiscardNew, Replicas: 3, AllowAtomicPublish: true,
				})
				require.NoError(t, err)
			}
			return &fillable{f, func() { limit(1) }, func() { limit(-1) }, nil}
		},
		"nats store": fillableStore, "nats disk": fillableDisk,
		"redis": func(t *testing.T) *fillable { // its memory
			p, err := newRedis("")
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(p.stop)
			client := redisgo.NewClient(&redisgo.Options{Addr: p.address()})
			t.Cleanup(func() { _ = client.Close() })
			limit := func(bytes string) {
				require.NoError(t, client.ConfigSet(context.Background(), "maxmemory", bytes).Err())
			}
			return &fillable{of(t, "redis", "redis://"+p.address()+"/0"), func() { limit("1mb") }, func() { limit("0") }, nil}
		},
		"amqp": func(t *testing.T) *fillable { // an alarm of the disk
			p, err := newRabbitMQ("", "")
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(p.stop)
			limit := func(bytes string) { require.NoError(t, p.ctl("set_disk_free_limit", bytes)) }
			return &fillable{of(t, "amqp", "amqp://"+p.address()+"/"), func() { limit("100000GB") }, func() { limit("1MB") }, nil}
		},
		"postgres": func(t *testing.T) *fillable { // a disk
			if os.Getenv(withServers) == "" {
				t.Skip(errNotAsked)
			}
			dir := smallDisk(t, 160)
			p, err := newPostgres(dir, "max_wal_size=64MB", "min_wal_size=32MB", "wal_recycle=off")
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(p.stop)
			var remove func()
			return &fillable{of(t, "postgres", "postgres://postgres@"+p.address()+"/postgres"), func() { remove = fillDisk(t, dir) }, func() {
				remove()
				if p.cmd.ProcessState == nil && p.ready() != nil { // it ends where it cannot write its log: a supervisor starts it again
					p.kill()
					require.NoError(t, p.start())
				}
			}, nil}
		},
	}
}

// eachFillable runs a test with each engine whose room a test can take.
func eachFillable(t *testing.T, test func(*testing.T, *fillable)) {
	for name, make := range fillables() {
		if engine, _, _ := strings.Cut(name, " "); only() != "" && only() != engine {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := make(t)
			e := f.open("")
			sub, err := e.Group("reader")
			require.NoError(t, err)
			require.NoError(t, sub.(message.SubscribeInitializer).SubscribeInitialize(f.topic))
			test(t, f)
		})
	}
}

// TestFull_ABridgeGoesOnWhenRoomIsBack: the bridge says so, loses nothing, and goes on by itself.
func TestFull_ABridgeGoesOnWhenRoomIsBack(t *testing.T) {
	eachFillable(t, func(t *testing.T, f *fillable) {
		const n, keys = 4000, 20
		kafka, _ := lastingPair(t)
		source := kafka.open("key=k")
		for i := 0; i < n; i += 100 {
			var batch []*message.Message
			for j := i; j < i+100; j++ {
				msg := messageOf(strconv.Itoa(j))
				msg.Metadata.Set("k", strconv.Itoa(j%keys))
				msg.Metadata.Set("filler", string(make([]byte, 3)))
				batch = append(batch, msg)
			}
			require.NoError(t, source.Publisher().Publish(kafka.topic, batch...))
		}
		log := &lines{t: t}
		var forwarded atomic.Int64
		filled := make(chan struct{})
		b, _ := runBridge(t, bridge.Config{
			From: kafka.url(""), To: f.url(""), Topics: []bridge.Topic{{From: kafka.topic, To: f.topic}}, Key: "k", MaxInFlight: 200, Batch: 20, Logger: log,
			Hooks: bridge.Hooks{OnForward: func(_ bridge.Topic, messages, _ int, _ time.Duration) {
				if forwarded.Add(int64(messages)) > n/4 {
					<-filled // else all can be over before
				}
			}},
		})
		require.Eventually(t, func() bool { return b.Stats().Forwarded > n/4 }, patience, time.Millisecond)
		f.fill()
		close(filled)
		var reason error
		require.Eventually(t, func() bool { reason = b.Ready(t.Context()); return reason != nil }, patience, 10*time.Millisecond)
		t.Log(reason)
		never := time.Now().Add(3 * time.Second) // real time is the subject
		for time.Now().Before(never) && b.Stats().Forwarded < n {
			time.Sleep(10 * time.Millisecond)
		}
		require.Less(t, b.Stats().Forwarded, int64(n))
		f.clear()
		require.Eventually(t, func() bool { s := b.Stats(); return s.Forwarded >= n && s.InHand == 0 }, 2*patience, 10*time.Millisecond)
		require.NoError(t, b.Ready(t.Context()))
		arrived := f.subscribe(f.open("group=reader&max_in_flight=100"), "reader")
		a := take(t, arrived, n)
		a.drain(arrived, 300*time.Millisecond)
		a.assertExact(t)
		log.assertFew()
	})
}

// TestFull_PublishSaysSoAndHandlersGoOn: an application's Publish ends with an error that says so, within its timeout; what is
// stored is handled and acked meanwhile; and Publish works when room is back.
func TestFull_PublishSaysSoAndHandlersGoOn(t *testing.T) {
	eachFillable(t, func(t *testing.T, f *fillable) {
		e := f.open("publish_timeout=5s&max_in_flight=1")
		const n = 200
		f.publish(e, 0, n, 0)
		arrived := f.subscribe(e, "reader")
		f.fill()
		began := time.Now()
		var err error
		big := make([]byte, 100_000)
		sent := 0
		for err == nil && sent < 5000 {
			msg := messageOf(strconv.Itoa(n + sent))
			msg.Metadata.Set("filler", fmt.Sprintf("%x", big[:1000]))
			if err = e.Publisher().Publish(f.topic, msg); err == nil {
				sent++
			}
		}
		require.ErrorIs(t, err, cmp.Or(f.says, driver.ErrFull))
		assert.Less(t, time.Since(began), 30*time.Second)
		t.Logf("%d more, then: %v", sent, err)
		took := account{seen: map[string]int{}, order: map[string][]int{}}
		if f.name != "postgres" { // which cannot store how far a group is
			took = take(t, arrived, n/2)
		}
		f.clear()
		last := messageOf("last")
		require.Eventually(t, func() bool { return e.Publisher().Publish(f.topic, last) == nil }, patience, 100*time.Millisecond)
		for took.seen["last"] == 0 {
			took.add(receive(t, arrived))
		}
		for i := range n + sent {
			assert.NotZero(t, took.seen[strconv.Itoa(i)], "%d", i)
		}
	})
}
