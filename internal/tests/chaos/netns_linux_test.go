package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// TestChaos_NetworkInterfacesGoDown puts both ends into network namespaces of their own, with a switch in a third one
// between them. When a link of it goes down, neither end is told: no FIN, no RST, nothing. Both have to notice by
// themselves.
func TestChaos_NetworkInterfacesGoDown(t *testing.T) {
	testkit.CheckLeaks(t)
	cable := newCable(t)
	b := newBench(t, cable)
	if !t.Run("nothing is given up while all is well", b.calm) {
		return
	}
	rounds := []struct{ name, link string }{
		{"the publisher's link", "port-a"}, {"the subscriber's link", "port-b"}, {"the switch", "switch"},
	}
	for _, r := range rounds {
		if !t.Run(r.name+", under load", func(t *testing.T) { b.round(t, r.link, true) }) ||
			!t.Run(r.name+", idle", func(t *testing.T) { b.round(t, r.link, false) }) {
			return
		}
	}
	b.finish(t)
}

// cable is three namespaces: a and b for the ends, and one for the switch.
type cable struct{ name string }

// newCable skips the test where the machine does not permit it.
func newCable(t *testing.T) *cable {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("no network namespaces: %v", err)
	}
	c := &cable{name: fmt.Sprintf("chaos%d", os.Getpid())}
	for _, n := range []string{"a", "b", "switch"} {
		if err := ip("netns", "add", c.namespace(n)); err != nil {
			t.Skipf("no network namespaces: %v", err)
		}
		t.Cleanup(func() { require.NoError(t, ip("netns", "del", c.namespace(n))) })
	}
	if err := c.build(); err != nil {
		t.Skipf("no switch between network namespaces: %v", err)
	}
	return c
}

func (c *cable) namespace(n string) string { return c.name + n }

func (c *cable) build() error {
	middle := c.namespace("switch")
	errs := []error{
		ip("-n", middle, "link", "add", "switch", "type", "bridge"),
		ip("-n", middle, "link", "set", "switch", "up"),
	}
	for i, n := range []string{"a", "b"} {
		end := c.namespace(n)
		errs = append(errs,
			ip("-n", middle, "link", "add", "port-"+n, "type", "veth", "peer", "name", "eth0", "netns", end),
			ip("-n", middle, "link", "set", "port-"+n, "master", "switch", "up"),
			ip("-n", end, "addr", "add", fmt.Sprintf("10.211.7.%d/24", i+1), "dev", "eth0"),
			ip("-n", end, "link", "set", "eth0", "up"))
	}
	return errors.Join(errs...)
}

func (c *cable) set(link, state string) error {
	return ip("-n", c.namespace("switch"), "link", "set", link, state)
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// inside calls f on a thread that is in a namespace: a socket belongs to that in which it was made.
func inside[T any](name string, f func() (T, error)) (result T, err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return result, err
	}
	defer func() { _ = home.Close() }()
	there, err := os.Open("/run/netns/" + name)
	if err != nil {
		return result, err
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return result, err
	}
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, back) // and the thread ends with its goroutine
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// bench is both ends with the cable between them.
type bench struct {
	cable   *cable
	pub     *buffstreams.Publisher
	topic   string
	account *account
	wrong   chan string
	next    uint64
	lost    [2]chan time.Time // when the publisher's side, and the listener's, gave a connection up
}

// informant is a hook for one thing: both ends tell that a connection ended.
type informant struct{ ended chan<- time.Time }

func (i informant) OnLost(hooks.Lost) {
	select {
	case i.ended <- time.Now():
	default: // an earlier end was not looked at
	}
}

func newBench(t *testing.T, c *cable) *bench {
	b := &bench{cable: c, wrong: make(chan string, 100)}
	for i := range b.lost {
		b.lost[i] = make(chan time.Time, 1)
	}
	cfg := ackedConfig()
	cfg.Insecure = true
	receiver, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		Acked: cfg, Hooks: []hooks.Hook{informant{b.lost[1]}},
		Listen: func(network, address string) (net.Listener, error) {
			return inside(c.namespace("b"), func() (net.Listener, error) { return net.Listen(network, address) })
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, receiver.Close()) })
	sender, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		Acked: cfg, Hooks: []hooks.Hook{informant{b.lost[0]}},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return inside(c.namespace("a"), func() (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, address)
			})
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sender.Close()) })
	b.subscribe(t, receiver)
	b.pub, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: sender, PublishTimeout: drainTime}, nil)
	require.NoError(t, err)
	return b
}

func (b *bench) subscribe(t *testing.T, m *buffstreams.Manager) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: m, ConsumerGroup: "group", NackResendSleep: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	messages, err := sub.Subscribe(context.Background(), "10.211.7.2:0/links")
	require.NoError(t, err)
	address, err := sub.Addr("10.211.7.2:0/links")
	require.NoError(t, err)
	b.topic = address.String() + "/links"
	complain := func(problem string) {
		select {
		case b.wrong <- problem:
		default:
		}
	}
	b.account = newAccount("links", 1, true, complain)
	consumer := &consumer{account: b.account, messages: messages, inFlight: 1, complain: complain}
	done := make(chan struct{})
	go func() { // ends when the subscriber closes
		defer close(done)
		consumer.run()
	}()
	t.Cleanup(func() {
		require.NoError(t, sub.Close())
		<-done
	})
}

// publish sends n messages and waits until they were received.
func (b *bench) publish(n int) error {
	batch := make([]*message.Message, n)
	for i := range batch {
		batch[i] = encode(1, b.next+uint64(i))
	}
	b.next += uint64(n)
	return b.pub.Publish(b.topic, batch...)
}

// calm sees an idle connection live on. Where the machine stood still meanwhile, that proves nothing: it looks again.
func (b *bench) calm(t *testing.T) {
	for began := time.Now(); ; {
		require.Less(t, time.Since(began), drainTime, "the machine stands still again and again")
		require.NoError(t, b.publish(1))
		b.forget()
		if longestPause(3*deadAfter) <= (deadAfter-pingAfter)/2 {
			break
		}
	}
	for i, name := range []string{"publisher", "subscriber"} {
		select {
		case <-b.lost[i]:
			require.FailNow(t, "an idle connection was given up", "by the %s", name)
		default:
		}
	}
}

// longestPause watches for a time, and returns the longest in which this process did not run. Real time is the subject.
func longestPause(watched time.Duration) (longest time.Duration) {
	began := time.Now()
	for last := began; last.Sub(began) < watched; {
		time.Sleep(10 * time.Millisecond)
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
	}
	return longest
}

// forget forgets what was given up until now.
func (b *bench) forget() {
	for _, c := range b.lost {
		select {
		case <-c:
		default:
		}
	}
}

// round takes a link down, sees both ends notice, and everything arrive when it is up again.
func (b *bench) round(t *testing.T, link string, load bool) {
	require.NoError(t, b.publish(2000))
	published := make(chan error, 1)
	b.forget()
	require.NoError(t, b.cable.set(link, "down"))
	down := time.Now()
	if load {
		go func() { published <- b.publish(2000) }() // ends when the link is up again, or with PublishTimeout
	} else {
		published <- nil
	}
	var noticed [2]time.Duration
	for i, name := range []string{"publisher", "subscriber"} {
		select {
		case at := <-b.lost[i]:
			noticed[i] = at.Sub(down)
		case <-time.After(giveUp):
			require.FailNow(t, "a half-open connection was not noticed", "by the %s within %v", name, giveUp)
		}
		require.Greater(t, noticed[i], deadAfter/2, "the %s was told", name)
	}
	require.NoError(t, b.cable.set(link, "up"))
	up := time.Now()
	require.NoError(t, <-published)
	require.NoError(t, b.publish(1))
	t.Logf("noticed by the publisher after %v, by the subscriber after %v; messages flow %v after the link was up",
		noticed[0].Round(ms), noticed[1].Round(ms), time.Since(up).Round(ms))
}

func (b *bench) finish(t *testing.T) {
	require.Eventually(t, func() bool { return b.account.handled.Load() == b.next }, drainTime, 5*ms)
	require.NoError(t, b.pub.Close())
	require.Zero(t, b.account.missing(b.next))
	select {
	case problem := <-b.wrong:
		require.Fail(t, problem)
	default:
	}
}
