package hosts

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/route"
)

const (
	herdSize  = 2000 // publishers, each with a connection of its own
	outage    = 5 * time.Second
	backAgain = 12 * time.Second
)

// herd notes the connections of publishers.
type herd struct {
	mu        sync.Mutex // guards the fields below
	dials     int        // that reached the listener
	connected []time.Time
	lost      int // connections that were welcomed, since the last call of begin
}

func (h *herd) OnDialed(e hooks.Dialed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Err == nil {
		h.dials++
	}
}

func (h *herd) OnConnected(hooks.Connected) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connected = append(h.connected, time.Now())
}

func (h *herd) OnLost(e hooks.Lost) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.Welcomed {
		h.lost++
	}
}

// begin forgets what was.
func (h *herd) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials, h.connected, h.lost = 0, nil, 0
}

func (h *herd) back() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.connected)
}

// busiest is the most of some moments that lie within a duration.
func busiest(moments []time.Time, within time.Duration) (most int) {
	slices.SortFunc(moments, time.Time.Compare)
	for i, from := 0, 0; i < len(moments); i++ {
		for moments[i].Sub(moments[from]) > within {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// processorOf is what a process has taken.
func processorOf(t *testing.T, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip("the processor time of a process is read in /proc: ", err)
	}
	_, after, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(after)
	user, err := strconv.Atoi(fields[11])
	require.NoError(t, err)
	system, err := strconv.Atoi(fields[12])
	require.NoError(t, err)
	const tick = 10 * time.Millisecond // of Linux, everywhere
	return time.Duration(user+system) * tick
}

// TestHosts_ThousandsComeBack after an outage: each within 12 s, and they do not come all at once, nor come twice.
func TestHosts_ThousandsComeBack(t *testing.T) {
	for range runs(t) {
		comeBack(t)
	}
}

func comeBack(t *testing.T) {
	h := &host{address: addresses(t, 1)[0], inFlight: 64, handled: func(string) {}}
	h.start(t)
	defer func() { h.end(syscallKill) }()
	all := &herd{}
	resolver := route.Func(func(context.Context, string) (route.Route, error) {
		return route.Route{Addresses: []string{h.address}}, nil
	})
	var closing sync.WaitGroup
	defer closing.Wait()
	for range herdSize {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Resolver: resolver, CloseTimeout: time.Second, PublishTimeout: time.Minute, ManagerConfig: buffstreams.ManagerConfig{Hooks: []hooks.Hook{all}},
		}, nil)
		require.NoError(t, err)
		defer closing.Go(func() { _ = pub.Close() }) //nolint:gocritic // all side by side, at the end
		require.NoError(t, pub.Publish("orders", message.NewMessage("1", nil)))
	}
	require.Equal(t, herdSize, all.back())
	h.end(syscallKill)
	time.Sleep(outage)
	all.begin()
	began := time.Now()
	h.start(t)
	require.Eventually(t, func() bool { return all.back() == herdSize }, 5*backAgain, 10*time.Millisecond, "%d are back", all.back())
	all.mu.Lock()
	last := slices.MaxFunc(all.connected, time.Time.Compare).Sub(began)
	all.mu.Unlock()
	took := processorOf(t, h.cmd.Process.Pid)
	time.Sleep(2 * time.Second) // for a second herd
	all.mu.Lock()
	lost, connects, burst := all.lost, len(all.connected), busiest(all.connected, 100*time.Millisecond)
	dials := all.dials
	all.mu.Unlock()
	t.Logf("%d publishers: the last is back after %v; %d dials reached it, %d connections lost; at most %d connects in 100 ms; the listener took %v of processor time",
		herdSize, last.Round(time.Millisecond), dials, lost, burst, took)
	report.note("H8", "2,000 publishers: the last is back after", "<= 12 s", "s", last.Seconds())
	report.note("H8", "most connects within 100 ms", "no herd: < 1000", "", float64(burst))
	report.note("H8", "processor time of the listener", "named", "ms", milliseconds(took))
	require.LessOrEqual(t, last, backAgain)
	require.Equal(t, herdSize, connects, "no publisher came back twice")
	require.Less(t, dials, herdSize*11/10, "no second herd")
	require.Zero(t, lost)
	require.Less(t, burst, herdSize/2)
}
