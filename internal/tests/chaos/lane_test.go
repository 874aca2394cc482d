package chaos

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// giveUp is after what time both ends must have closed a connection that was harmed.
const giveUp = 10 * deadAfter

// ackedConfig is that of both ends.
func ackedConfig() buffstreams.AckedConfig {
	return buffstreams.AckedConfig{
		HandshakeTimeout: handshakeTimeout, WriteTimeout: writeTimeout, PingAfter: pingAfter, DeadAfter: deadAfter,
		Reconnect: &buffstreams.ReconnectConfig{InitialInterval: 2 * time.Millisecond, MaxInterval: 50 * time.Millisecond},
	}
}

// lane is two publishers and their subscribers, with a network of their own between them.
type lane struct {
	world    *world
	id       int
	relay    *relay
	road     atomic.Pointer[string] // where publishers dial: the relay, or a toxic proxy before it
	manager  *buffstreams.Manager   // the publishers'
	flows    []*flow
	schedule *schedule
	faults   atomic.Int64

	mu      sync.Mutex
	more    chan struct{} // closed and replaced when more may be published
	allowed uint64        // messages of each flow
	last    bool          // no more will be allowed
}

func newLane(t testing.TB, w *world, id int) *lane {
	l := &lane{world: w, id: id, schedule: newSchedule(w.seed, uint64(id)), more: make(chan struct{})}
	receiver, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: ackedConfig()})
	require.NoError(t, err)
	w.atEnd(receiver.Close)
	l.manager, err = buffstreams.NewManager(buffstreams.ManagerConfig{Acked: ackedConfig(), Dial: l.dial})
	require.NoError(t, err)
	w.atEnd(l.manager.Close)
	for i := range 2 {
		// No two lanes have a topic of one name: a dial can reach a port that has just become another lane's proxy.
		n := 2*id + i
		f := &flow{lane: l, id: uint32(n), name: fmt.Sprintf("flow-%d", n), mode: modes[(id+i)%len(modes)]}
		f.subscribe(t, receiver, i == 0)
		l.flows = append(l.flows, f)
	}
	l.relay = newRelay(t, l.flows[0].listening.String(), w.seed+uint64(id))
	w.atEnd(func() error { l.relay.close(); return nil })
	address := l.relay.address()
	l.road.Store(&address)
	for _, f := range l.flows {
		f.connect(t)
	}
	return l
}

// dial is the publishers' way into the network.
func (l *lane) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", *l.road.Load())
}

// allow lets each flow publish n messages more.
func (l *lane) allow(n uint64, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowed += n
	l.last = l.last || last
	close(l.more)
	l.more = make(chan struct{})
}

// await waits until more than n messages are allowed, and returns how many are. It returns false when no more will be.
func (l *lane) await(n uint64) (uint64, bool) {
	for {
		l.mu.Lock()
		allowed, last, more := l.allowed, l.last, l.more
		l.mu.Unlock()
		if allowed > n || last {
			return allowed, allowed > n
		}
		<-more
	}
}

// torment deals faults until enough happened, each along with its share of the messages.
func (l *lane) torment(enough func(faults int) bool, share uint64) {
	for n := 0; !enough(n); {
		f := l.schedule.next()
		if !l.suffer(f, share) {
			l.world.missed.Add(1)
			continue
		}
		n++
		l.faults.Add(1)
		l.world.count(f.kind.name)
		if doomed := l.relay.doomed(time.Now().Add(-giveUp)); doomed > 0 {
			l.world.complain(fmt.Sprintf("lane %d: %d connections live on %v after they lost or damaged bytes", l.id, doomed, giveUp))
		}
	}
	l.relay.heal()
}

// suffer lets one fault happen. It returns false if there was nothing that it could happen to.
func (l *lane) suffer(f fault, share uint64) bool {
	l.traffic(f.before, share/4)
	share -= share / 4
	defer l.relay.heal()
	switch {
	case f.toxics != nil:
		return l.detour(f, share)
	case f.kind.damage != none:
		l.relay.strike(f.direction, f.kind.damage, f.skip)
		l.allow(share, false)
		return l.relay.struck(f.direction, f.lasts)
	case f.lasts == 0:
		l.allow(share, false)
		f.kind.begin(l.relay, f.direction)
		return true
	}
	f.kind.begin(l.relay, f.direction)
	l.traffic(f.lasts, share)
	return true
}

// detour sends the lane through a toxic proxy for a while.
func (l *lane) detour(f fault, share uint64) bool {
	direct := l.relay.address()
	address, err := l.world.proxies.open(direct, f.toxics...)
	if err != nil { // their process was killed by another lane's fault
		l.allow(share, false)
		return false
	}
	l.road.Store(&address)
	l.relay.cut(true)
	l.traffic(f.lasts, share)
	if f.kind.proxyDie {
		l.world.proxies.kill()
	}
	l.road.Store(&direct)
	_ = l.world.proxies.close(address) // it may be dead
	l.relay.cut(false)
	return true
}

// traffic spreads messages over a while.
func (l *lane) traffic(d time.Duration, n uint64) {
	const steps = 8
	for i := range uint64(steps) {
		l.allow(n*(i+1)/steps-n*i/steps, false)
		pause(d / steps)
	}
}

func pause(d time.Duration) { <-time.After(d) }

// mode is how a flow is confirmed.
type mode struct {
	name    string
	confirm buffstreams.Confirm
	outbox  bool
}

var modes = []mode{
	{name: "enqueued", confirm: buffstreams.ConfirmEnqueued},
	{name: "received", confirm: buffstreams.ConfirmReceived},
	{name: "handled", confirm: buffstreams.ConfirmHandled},
	{name: "outbox", outbox: true},
}

// flow is what one publisher sends to one topic.
type flow struct {
	lane      *lane
	id        uint32
	name      string
	mode      mode
	topic     string // as the publisher names it
	pub       *buffstreams.Publisher
	listening net.Addr
	accounts  []*account // of its consumer groups
	published atomic.Uint64
}

// subscribe makes the flow's consumer groups: two with one member each, or one that two members share.
func (f *flow) subscribe(t testing.TB, m *buffstreams.Manager, separate bool) {
	if separate {
		f.join(t, m, "one at a time", 1, 1)
		f.join(t, m, "many at a time", 1, 32)
		return
	}
	f.join(t, m, "shared", 2, 8)
}

func (f *flow) join(t testing.TB, m *buffstreams.Manager, group string, members, inFlight int) {
	name := fmt.Sprintf("lane %d, %s, confirmed when %s, group %s", f.lane.id, f.name, f.mode.name, group)
	a := newAccount(name, f.id, members == 1, f.lane.world.complain)
	f.accounts = append(f.accounts, a)
	for range members {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			Manager: m, ConsumerGroup: group, MaxInFlight: inFlight,
			NackResendSleep: time.Millisecond, NackResendCap: 10 * time.Millisecond,
		}, nil)
		require.NoError(t, err)
		f.lane.world.atEnd(sub.Close)
		topic := "127.0.0.1:0/" + f.name
		messages, err := sub.Subscribe(context.Background(), topic)
		require.NoError(t, err)
		f.listening, err = sub.Addr(topic)
		require.NoError(t, err)
		c := &consumer{account: a, messages: messages, inFlight: inFlight, complain: f.lane.world.complain}
		f.lane.world.consumers.Go(c.run) // ends when the subscriber closes
	}
}

// connect makes the publisher.
func (f *flow) connect(t testing.TB) {
	cfg := buffstreams.PublisherConfig{Manager: f.lane.manager, Confirm: f.mode.confirm, PublishTimeout: -1}
	if f.mode.outbox {
		ob, err := outbox.Open(outbox.Config{Dir: t.TempDir(), SegmentBytes: 1 << 20})
		require.NoError(t, err)
		f.lane.world.atEnd(ob.Close)
		cfg.Outbox = ob
	}
	pub, err := buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	f.pub = pub
	f.lane.world.atEnd(pub.Close)
	f.topic = f.lane.relay.address() + "/" + f.name
}
