package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// pendingIn is the number of messages that an outbox holds.
func pendingIn(ob *outbox.Outbox) (n int) {
	for _, s := range ob.Streams() {
		n += int(s.Pending)
	}
	return n
}

// loudLog keeps what was said at level Error.
type loudLog struct {
	watermill.NopLogger
	mu    sync.Mutex
	lines []string
}

func (l *loudLog) Error(msg string, err error, fields watermill.LogFields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprint(msg, " ", err, " ", fields))
}

func (l *loudLog) With(watermill.LogFields) watermill.LoggerAdapter { return l }

// count is the number of lines that contain a text.
func (l *loudLog) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// host is a process with an outbox.
type host struct {
	t   *testing.T
	dir string
	box *outbox.Outbox
	pub *buffstreams.Publisher
	log *loudLog
	net *network
}

// startHost opens the outbox in dir.
func startHost(t *testing.T, dir string) *host {
	t.Helper()
	return startHostOn(t, dir, newNetwork(t, 0, 0))
}

// startHostCutOff is startHost without a network, until that is restored.
func startHostCutOff(t *testing.T, dir string) *host {
	t.Helper()
	n := newNetwork(t, 0, 0)
	n.cut()
	return startHostOn(t, dir, n)
}

func startHostOn(t *testing.T, dir string, n *network) *host {
	t.Helper()
	h := &host{t: t, dir: dir, log: &loudLog{}, net: n}
	var err error
	h.box, err = outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	h.pub, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: h.box, ManagerConfig: buffstreams.ManagerConfig{Dial: h.net.dial, Acked: quick(buffstreams.AckedConfig{})},
	}, h.log)
	require.NoError(t, err)
	t.Cleanup(h.stop)
	return h
}

// stop closes it, if that was not done before.
func (h *host) stop() {
	_ = h.pub.Close()
	_ = h.box.Close()
}

// publish publishes one message after another, "name from" to "name to".
func (h *host) publish(topic, name string, from, to int) {
	h.t.Helper()
	for _, m := range numbered(name, from, to) {
		require.NoError(h.t, h.pub.Publish(topic, newMessage(m)))
	}
}

// says how often the host has said that it is a copy.
func (h *host) says() int { return h.log.count("messages can be delivered twice") }

func numbered(name string, from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprint(name, " ", i))
	}
	return all
}

// copyTo copies a directory, over what is there.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(to))
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
}

// sink acks everything, and remembers how often it came.
type sink struct {
	mu  sync.Mutex
	got map[string]int
}

func (s *sink) take(messages <-chan *message.Message) {
	for m := range messages { // until the subscriber closes
		s.mu.Lock()
		s.got[string(m.Payload)]++
		s.mu.Unlock()
		m.Ack()
	}
}

// count is how many different messages with a name came, and how often any came again.
func (s *sink) count(name string) (different, again int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for payload, n := range s.got {
		if strings.HasPrefix(payload, name+" ") {
			different++
			again += n - 1
		}
	}
	return different, again
}

// sinkAt listens at a fixed address, with the given store, until the function that it returns is called.
func sinkAt(t *testing.T, s *sink, st store.DedupeStore, topics ...string) (stop func()) {
	t.Helper()
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ConsumerGroup: "g", ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Dedupe: st}},
	}, nil)
	require.NoError(t, err)
	for _, topic := range topics {
		messages := subscribe(t, sub, topic)
		go s.take(messages) // ends with sub
	}
	var once sync.Once
	stop = func() { once.Do(func() { require.NoError(t, sub.Close()) }) }
	t.Cleanup(stop)
	return stop
}

func newSink() *sink { return &sink{got: map[string]int{}} }

func openDedupe(t *testing.T) *dedupe.Store {
	t.Helper()
	st, err := dedupe.Open(filepath.Join(t.TempDir(), "dedupe"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return st
}

// TestIdentity_RestoredOutbox: a backup of an outbox is restored after its messages went on. What is published then has the
// sequences of what was published after the backup. A receiver that remembers, also across a restart, takes none for that;
// one that remembers nothing takes everything.
func TestIdentity_RestoredOutbox(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		for _, withStore := range []bool{false, true} {
			for _, first := range []int{1, 5, 10, 11, 30} { // published before anything is delivered: fewer than were lost, or more
				t.Run(fmt.Sprintf("receiver restarts %v, with a store %v, %d at first", restart, withStore, first), func(t *testing.T) {
					t.Parallel()
					box := filepath.Join(t.TempDir(), "box")
					var st store.DedupeStore
					if withStore {
						st = openDedupe(t)
					}
					topic, seen := freeAddress(t)+"/orders", newSink()
					stop := sinkAt(t, seen, st, topic)
					a := startHost(t, box)
					a.publish(topic, "before", 1, 10)
					drain(t, a.pub)
					backup := a.backup()
					a.publish(topic, "lost", 1, 10)
					drain(t, a.pub)
					a.crash()
					copyTo(t, backup, box)
					if restart {
						stop()
					}
					c := startHost(t, box)
					c.publish(topic, "new", 1, first)
					if restart {
						sinkAt(t, seen, st, topic)
					}
					drain(t, c.pub)
					c.publish(topic, "new", first+1, 40)
					drain(t, c.pub)
					got, _ := seen.count("new")
					require.Equal(t, 40, got)
				})
			}
		}
	}
}

// crash ends a host as a power cut does: its receivers hear nothing of it, and the outbox stays as it was. It returns a copy
// of that.
func (h *host) crash() (backup string) {
	h.t.Helper()
	backup = h.backup()
	h.net.cut()
	h.stop()
	copyTo(h.t, backup, h.dir)
	return backup
}

// backup returns a copy of the outbox. The outbox may still remove a file that nothing needs any more, so a copy counts only
// if no file changed meanwhile.
func (h *host) backup() string {
	h.t.Helper()
	dir := filepath.Join(h.t.TempDir(), "copy")
	require.Eventually(h.t, func() bool {
		before := listing(h.t, h.dir)
		if os.RemoveAll(dir) != nil || os.CopyFS(dir, os.DirFS(h.dir)) != nil {
			return false
		}
		return slices.Equal(before, listing(h.t, h.dir))
	}, 30*time.Second, time.Millisecond)
	return dir
}

// listing names the files of a directory, each with its size and when it was last written.
func listing(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // it may be gone by now: then the next listing differs
			all = append(all, fmt.Sprint(e.Name(), info.Size(), info.ModTime().UnixNano()))
		}
	}
	return all
}

// TestIdentity_RestoredOutboxThatIsStuckAndRestarted: more epochs were lost than the backup knows, so it is fenced, until it
// has been restarted often enough to pass for a successor.
func TestIdentity_RestoredOutboxThatIsStuckAndRestarted(t *testing.T) {
	t.Parallel()
	for _, lives := range []int{1, 3} {
		for _, restarts := range []int{0, 1, 4} {
			for _, withStore := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d lives lost, %d restarts before it connects, the receiver restarts %v", lives, restarts, withStore), func(t *testing.T) {
					t.Parallel()
					box := filepath.Join(t.TempDir(), "box")
					topic, seen := freeAddress(t)+"/orders", newSink()
					var st store.DedupeStore
					if withStore {
						st = openDedupe(t)
					}
					stop := sinkAt(t, seen, st, topic)
					a := startHost(t, box)
					a.publish(topic, "before", 1, 10)
					drain(t, a.pub)
					backup := a.crash()
					for life := range lives {
						b := startHost(t, box)
						b.publish(topic, fmt.Sprint("lost", life), 1, 5)
						drain(t, b.pub)
						b.crash()
					}
					copyTo(t, backup, box)
					if withStore {
						stop()
						sinkAt(t, seen, st, topic)
					}
					for restart := range restarts {
						c := startHostCutOff(t, box)
						c.publish(topic, "new", 5*restart+1, 5*restart+5)
						c.stop()
					}
					c := startHost(t, box)
					c.publish(topic, "new", 5*restarts+1, 5*restarts+5)
					drain(t, c.pub)
					got, _ := seen.count("new")
					require.Equal(t, 5*restarts+5, got)
					require.Equal(t, 1, c.says(), "%v", c.log.lines)
					require.Equal(t, 1, c.log.count(box), "it names the directory")
					c.stop()

					c = startHost(t, box) // the new identity is durable, and its own
					c.publish(topic, "newer", 1, 5)
					drain(t, c.pub)
					got, again := seen.count("newer")
					require.Equal(t, []int{5, 0, 0}, []int{got, again, c.says()})
				})
			}
		}
	}
}

// TestIdentity_CopiedOutbox: a directory is copied to a second host, with messages or from an image that never had any, and
// both go on: at once, in turn, or each with connections that are cut.
func TestIdentity_CopiedOutbox(t *testing.T) {
	t.Parallel()
	const n = 50
	for _, used := range []bool{false, true} {
		for _, withStore := range []bool{false, true} {
			for _, how := range []string{"at once", "in turn", "the copy restarts", "with cuts"} {
				t.Run(fmt.Sprintf("used before %v, with a store %v, %s", used, withStore, how), func(t *testing.T) {
					t.Parallel()
					one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
					var st store.DedupeStore
					if withStore {
						st = openDedupe(t)
					}
					topic, seen := freeAddress(t)+"/orders", newSink()
					sinkAt(t, seen, st, topic)
					ob := startHost(t, one)
					if used {
						ob.publish(topic, "before", 1, 10)
						drain(t, ob.pub)
					}
					copyTo(t, ob.crash(), two)
					a, b := startHost(t, one), startHost(t, two)
					switch how {
					case "at once", "with cuts":
						for i := 1; i <= n; i++ {
							a.publish(topic, "a", i, i)
							b.publish(topic, "b", i, i)
							if how == "with cuts" && i%10 == 0 {
								for _, h := range []*host{a, b} {
									h.net.cut()
									h.net.restore()
								}
							}
						}
					case "in turn":
						a.publish(topic, "a", 1, n)
						drain(t, a.pub)
						b.publish(topic, "b", 1, n)
					case "the copy restarts":
						a.publish(topic, "a", 1, n)
						drain(t, a.pub)
						b.net.cut()
						b.publish(topic, "b", 1, n)
						b.stop()
						b = startHost(t, two)
					}
					drain(t, a.pub)
					drain(t, b.pub)
					for _, name := range []string{"a", "b"} {
						got, again := seen.count(name)
						require.Equal(t, n, got, name)
						if again > 0 {
							require.NotZero(t, a.says()+b.says(), "what comes twice is said")
						}
					}
				})
			}
		}
	}
}

// TestIdentity_CopiesWithOtherTopics: hosts from one image publish to different topics of an address. A restart of one does
// not lock the other out.
func TestIdentity_CopiesWithOtherTopics(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	address, seen := freeAddress(t), newSink()
	sinkAt(t, seen, nil, address+"/a", address+"/b")
	copyTo(t, startHost(t, one).crash(), two)
	a, b := startHost(t, one), startHost(t, two)
	a.publish(address+"/a", "a", 1, 10)
	b.publish(address+"/b", "b", 1, 10)
	drain(t, a.pub)
	drain(t, b.pub)
	a.crash()
	a = startHost(t, one)
	a.publish(address+"/a", "a", 11, 20)
	drain(t, a.pub)
	b.publish(address+"/b", "b", 11, 20)
	drain(t, b.pub)
	for _, name := range []string{"a", "b"} {
		got, _ := seen.count(name)
		require.Equal(t, 20, got, name)
	}
}

// TestIdentity_OutboxWhoseNewestMessagesAreLost: a disk that had confirmed them loses them, or they are removed by hand. The
// receiver has them, and those that come later have their sequences.
func TestIdentity_OutboxWhoseNewestMessagesAreLost(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 10, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			box := filepath.Join(t.TempDir(), "box")
			topic, seen := freeAddress(t)+"/orders", newSink()
			sinkAt(t, seen, nil, topic)
			a := startHost(t, box)
			a.publish(topic, "before", 1, 10)
			drain(t, a.pub)
			a.crash()
			segments, err := filepath.Glob(filepath.Join(box, "*.wal"))
			require.NoError(t, err)
			require.NotEmpty(t, segments)
			for _, segment := range segments {
				require.NoError(t, os.Remove(segment))
			}
			b := startHost(t, box)
			b.publish(topic, "new", 1, n)
			drain(t, b.pub)
			got, _ := seen.count("new")
			require.Equal(t, n, got)
		})
	}
}
