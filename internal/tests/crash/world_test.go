//go:build linux

package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	topics     = []string{"red", "green", "blue"}
	publishers = []string{"a", "b"} // each with an outbox of its own
)

// world is two publishers, their subscriber, and the goroutine that kills them.
type world struct {
	t       *testing.T
	mode    mode
	rng     *rand.Rand
	dir     string
	address string
	account *account

	publishers      []*process
	subscriber      *process
	life            int // of the subscriber
	subscriberKills int
}

func newWorld(t *testing.T, m mode, seed uint64) *world {
	w := &world{
		t: t, mode: m, rng: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), address: reserve(t), account: newAccount(),
		publishers: make([]*process, len(publishers)),
	}
	t.Cleanup(func() {
		for _, p := range append(w.publishers, w.subscriber) {
			if p != nil {
				p.discard()
			}
		}
	})
	w.startSubscriber()
	for i := range publishers {
		w.startPublisher(i)
	}
	return w
}

// reserve returns an address that is the test's until its end, also while no process listens there: the port is bound to
// a socket that does not listen, so that the kernel gives it to nobody who does not ask for it by number.
func reserve(t *testing.T) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	require.NoError(t, syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	bound, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

func (w *world) startSubscriber() {
	dir := filepath.Join(w.dir, "subscriber")
	require.NoError(w.t, os.MkdirAll(dir, 0o700))
	life := w.life
	w.life++
	a := assignment{Role: "subscriber", Dir: dir, Address: w.address, Memory: w.mode.memory, MaxInFlight: w.mode.maxInFlight}
	w.subscriber = start(w.t, a, func(words []string) bool {
		if len(words) != 4 || words[0] != "handled" {
			return false
		}
		n, err := strconv.ParseUint(words[3], 10, 64)
		w.account.handle(handling{flow{words[1], words[2]}, n, life})
		return err == nil
	})
}

func (w *world) startPublisher(i int) {
	name := publishers[i]
	a := assignment{Role: "publisher", Dir: filepath.Join(w.dir, name), Address: w.address, Name: name}
	for _, topic := range topics {
		a.Next = append(a.Next, w.account.next(flow{name, topic}))
	}
	w.publishers[i] = start(w.t, a, func(words []string) bool {
		if len(words) != 4 {
			return false
		}
		f := flow{name, words[1]}
		first, err1 := strconv.ParseUint(words[2], 10, 64)
		last, err2 := strconv.ParseUint(words[3], 10, 64)
		switch r := (run{first, last}); {
		case err1 != nil || err2 != nil:
			return false
		case words[0] == "try":
			return w.account.try(f, r) == nil
		case words[0] == "confirmed":
			w.account.confirm(f, r)
			return true
		}
		return false
	})
}

// torment kills so many times. Sometimes the victims are still about to start, and sometimes they stay away a while.
func (w *world) torment(kills int) {
	for range kills {
		if w.rng.IntN(4) > 0 {
			for _, p := range append(w.publishers[:len(w.publishers):len(w.publishers)], w.subscriber) {
				p.await(p.ready)
			}
		}
		w.pass(2*time.Millisecond, 200*time.Millisecond)
		w.strike()
	}
}

// pass lets the processes work for a random time.
func (w *world) pass(least, most time.Duration) {
	<-time.After(least + time.Duration(w.rng.Int64N(int64(most-least))))
}

// strike kills one or several at once and starts them again, in any order.
func (w *world) strike() {
	var victims []*process
	var restarts []func()
	chosen := 1 + w.rng.IntN(1<<len(publishers)-1) // a set of publishers
	if w.mode.memory != inProcess && w.rng.IntN(3) > 0 {
		chosen = w.rng.IntN(1 << len(publishers))
		victims, restarts = append(victims, w.subscriber), append(restarts, w.startSubscriber)
		w.subscriberKills++
	}
	for i, p := range w.publishers {
		if chosen>>i&1 == 1 {
			victims, restarts = append(victims, p), append(restarts, func() { w.startPublisher(i) })
		}
	}
	w.rng.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	for _, p := range victims {
		p.shoot()
	}
	for _, p := range victims {
		p.bury()
	}
	if w.rng.IntN(4) == 0 {
		w.pass(0, 50*time.Millisecond)
	}
	w.rng.Shuffle(len(restarts), func(i, j int) { restarts[i], restarts[j] = restarts[j], restarts[i] })
	for _, restart := range restarts {
		restart()
	}
}

// drain leaves all in peace until nothing is pending, and ends them. Before the last few messages the subscriber dies once
// more, unless it has to live: now its publishers' streams are quiet.
func (w *world) drain() {
	for _, p := range w.publishers {
		p.order()
	}
	for _, p := range w.publishers {
		p.await(p.rested)
	}
	if w.mode.memory != inProcess {
		w.subscriber.shoot()
		w.subscriber.bury()
		w.subscriberKills++
		w.startSubscriber()
	}
	for _, p := range w.publishers {
		p.order()
	}
	for _, p := range w.publishers {
		p.dismiss()
	}
	w.subscriber.order()
	w.subscriber.dismiss()
	if w.mode.memory == withEffect {
		w.account.handled = readEffects(w.t, filepath.Join(w.dir, "subscriber"))
	}
}
