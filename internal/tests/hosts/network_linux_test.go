package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// network is a publisher and some hosts, each in a network namespace of its own behind a link to a router in one more. No end is
// told when something is lost on the way: no FIN, no RST, no ICMP.
type network struct {
	name  string
	hosts int
}

var networks atomic.Int32 // numbers those of this process

// newNetwork skips the test where the machine does not permit it.
func newNetwork(t *testing.T, hosts int) *network {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("no network namespaces: %v", err)
	}
	n := &network{name: fmt.Sprintf("hosts%d-%d", os.Getpid(), networks.Add(1)), hosts: hosts}
	for _, namespace := range append(n.ends(), "router") {
		if err := ip("netns", "add", n.namespace(namespace)); err != nil {
			t.Skipf("no network namespaces: %v", err)
		}
		t.Cleanup(func() { require.NoError(t, ip("netns", "del", n.namespace(namespace))) })
	}
	if err := n.build(); err != nil {
		t.Skipf("no router between network namespaces: %v", err)
	}
	return n
}

// ends are the names of the publisher and the hosts.
func (n *network) ends() []string {
	all := []string{"publisher"}
	for i := range n.hosts {
		all = append(all, fmt.Sprint("host", i))
	}
	return all
}

func (n *network) namespace(end string) string { return n.name + end }

// ip returns the address of an end: 0 is the publisher, i+1 the host i.
func (n *network) ip(end int) string { return fmt.Sprintf("10.212.%d.2", end) }

func (n *network) build() error {
	router := n.namespace("router")
	_, err := inside(router, func() (struct{}, error) {
		return struct{}{}, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	})
	errs := []error{err}
	for i, end := range n.ends() {
		there, gateway := n.namespace(end), fmt.Sprintf("10.212.%d.1", i)
		errs = append(errs,
			ip("-n", router, "link", "add", "port-"+end, "type", "veth", "peer", "name", "eth0", "netns", there),
			ip("-n", router, "addr", "add", gateway+"/24", "dev", "port-"+end),
			ip("-n", router, "link", "set", "port-"+end, "up"),
			ip("-n", there, "addr", "add", n.ip(i)+"/24", "dev", "eth0"),
			ip("-n", there, "link", "set", "lo", "up"),
			ip("-n", there, "link", "set", "eth0", "up"),
			ip("-n", there, "route", "add", "default", "via", gateway))
	}
	return errors.Join(errs...)
}

// lose has the router drop, in silence, all that an end sends to another, until restore is called.
func (n *network) lose(t testing.TB, from, to int) (restore func()) {
	rule := func(verb string) {
		require.NoError(t, ip("-n", n.namespace("router"), "rule", verb, "iif", "port-"+n.ends()[from], "to", n.ip(to)+"/32", "blackhole"))
	}
	rule("add")
	return func() { rule("del") }
}

// cut takes the link of a host down, until restore is called.
func (n *network) cut(t testing.TB, end int) (restore func()) {
	set := func(state string) { // at the host's own side the route behind it would go, which TCP is told of
		require.NoError(t, ip("-n", n.namespace("router"), "link", "set", "port-"+n.ends()[end], state))
	}
	set("down")
	return func() { set("up") }
}

// dial connects from the publisher's namespace.
func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return inside(n.namespace("publisher"), func() (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	})
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
