package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// links is three replicas behind links of their own, and a publisher that offers them messages.
type links struct {
	network *network
	hosts   []*host
	pub     *buffstreams.Publisher
	ledger  *ledger
	policy  string
}

// linkCase is what a publisher does while a link is disturbed.
type linkCase struct {
	policy, confirm string
	batch           int
	outbox          bool
	work            time.Duration // of a handler
	disturb         func(t *testing.T, l *links)
}

func (c linkCase) name() string {
	with := ""
	if c.outbox {
		with = "/outbox"
	}
	return fmt.Sprintf("%s/%s/%d%s", c.policy, c.confirm, c.batch, with)
}

func newLinks(t *testing.T, c linkCase) *links {
	l := &links{network: newNetwork(t, 3), ledger: newLedger(), policy: c.policy}
	var addresses []string
	for i := range l.network.hosts {
		h := &host{
			address: l.network.ip(i+1) + ":5031", work: c.work, inFlight: 64, env: []string{"HOSTS_MARKS=1"},
			inside:  []string{"ip", "netns", "exec", l.network.namespace(fmt.Sprint("host", i))},
			handled: func(line string) { l.ledger.delivered(i, line) },
		}
		h.start(t)
		t.Cleanup(func() { h.end(syscallKill) })
		l.hosts, addresses = append(l.hosts, h), append(addresses, h.address)
	}
	cfg := buffstreams.PublisherConfig{
		Resolver:       route.Static{"orders": {Addresses: addresses, Policy: linkPolicies[c.policy], HashKey: "key"}},
		PublishTimeout: 20 * time.Second, CloseTimeout: time.Second,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Insecure: true}, Dial: l.network.dial},
	}
	if os.Getenv("HOSTS_LOG") != "" {
		cfg.ManagerConfig.Hooks = []hooks.Hook{linkLog{t, time.Now()}}
	}
	if !c.outbox {
		cfg.Confirm = confirms[c.confirm]
	} else {
		store, err := outbox.Open(outbox.Config{Dir: filepath.Join(t.TempDir(), "outbox")})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, store.Close()) })
		cfg.Outbox = store
	}
	var err error
	l.pub, err = buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.pub.Close() })
	return l
}

// linkPolicies are policies, and All.
var linkPolicies = map[string]route.Policy{
	"Failover": route.Failover, "RoundRobin": route.RoundRobin, "LeastPending": route.LeastPending, "Hash": route.Hash, "All": route.All,
}

// linkCases are the kinds of publishers.
func linkCases() (all []linkCase) {
	for policy := range linkPolicies {
		all = append(all, linkCase{policy: policy, confirm: "Received", batch: 1}, linkCase{policy: policy, confirm: "Handled", batch: 100})
		if policy != "All" {
			all = append(all, linkCase{policy: policy, confirm: "Enqueued", batch: 1}, linkCase{policy: policy, confirm: "Enqueued", batch: 10, outbox: true})
		}
	}
	return all
}

// disturbances are what becomes of the link of the first host, with 500 messages a second under way. Each returns with the links as they
// are to be at the end.
var disturbances = map[string]func(t *testing.T, l *links){
	"down for five seconds": func(t *testing.T, l *links) {
		restore := l.network.cut(t, 1)
		time.Sleep(5 * time.Second)
		restore()
		time.Sleep(3 * time.Second)
	},
	"down for ever": func(t *testing.T, l *links) {
		l.network.cut(t, 1)
		time.Sleep(9 * time.Second)
	},
	"down in the middle of a move": func(t *testing.T, l *links) {
		require.NoError(t, l.hosts[0].cmd.Process.Signal(syscall.SIGTERM))
		time.Sleep(50 * time.Millisecond) // goaway, and Revoke; handlers go on
		l.network.cut(t, 1)
		time.Sleep(9 * time.Second)
	},
	"what the host sends is lost": func(t *testing.T, l *links) {
		restore := l.network.lose(t, 1, 0)
		time.Sleep(8 * time.Second)
		restore()
		time.Sleep(3 * time.Second)
	},
	"what the publisher sends is lost": func(t *testing.T, l *links) {
		restore := l.network.lose(t, 0, 1)
		time.Sleep(8 * time.Second)
		restore()
		time.Sleep(3 * time.Second)
	},
}

// TestLinks_OneOfThree is disturbed: nothing that was confirmed is lost, what comes twice is marked, keys are in order while their
// stream is at a host, no call takes longer than MoveAfter and a second, and Close says what is left.
func TestLinks_OneOfThree(t *testing.T) {
	runs(t)
	for kind, disturb := range disturbances {
		t.Run(strings.ReplaceAll(kind, " ", "_"), func(t *testing.T) {
			for _, c := range linkCases() {
				if c.disturb = disturb; kind == "down in the middle of a move" {
					c.work = 100 * time.Millisecond
				}
				t.Run(c.name(), func(t *testing.T) {
					t.Parallel()
					c.run(t)
				})
			}
		})
	}
}

func (c linkCase) run(t *testing.T) {
	l := newLinks(t, c)
	stop := make(chan struct{})
	wait := l.ledger.offer(l.pub, 500, c.batch, stop)
	time.Sleep(time.Second)
	c.disturb(t, l)
	close(stop)
	wait()
	var hosts []int
	if c.policy == "All" {
		hosts = []int{0, 1, 2}
	}
	until := time.Now().Add(30 * time.Second)
	for l.ledger.lacking(hosts...) > 0 && time.Now().Before(until) {
		time.Sleep(20 * time.Millisecond)
	}
	require.Zero(t, l.ledger.lacking(hosts...), "confirmed and lost")
	left := l.pub.Close()
	l.ledger.check(t, c.policy)
	if c.policy != "All" {
		require.Zero(t, l.ledger.count(notSent)+l.ledger.count(unknown), "%v", l.ledger.firstErr)
		require.NoError(t, left)
		require.LessOrEqual(t, l.ledger.stuck, callers, "each caller meets a silent address once")
		require.Less(t, l.ledger.longest, 8*time.Second, "MoveAfter and a second, and what a busy machine takes")
		return
	}
	said := 0
	if undelivered := (*buffstreams.UndeliveredError)(nil); errors.As(left, &undelivered) {
		said = undelivered.Count
	}
	require.LessOrEqual(t, l.ledger.missing(hosts), said, "Close says what hosts lack")
	t.Logf("unknown %d, not sent %d, Close: %v", l.ledger.count(unknown), l.ledger.count(notSent), left)
}

// linkLog logs what becomes of addresses, with HOSTS_LOG=1.
type linkLog struct {
	t     *testing.T
	began time.Time
}

func (l linkLog) OnAddressState(e hooks.AddressState) {
	l.t.Logf("%v %s is %s: %v", time.Since(l.began).Round(time.Millisecond), e.Address, e.State, e.Err)
}

func (l linkLog) OnMoved(e hooks.Moved) {
	l.t.Logf("%v %d moved from %s to %s, %d can repeat, tenure %d",
		time.Since(l.began).Round(time.Millisecond), e.Messages, e.From, e.To, e.MayRepeat, e.Tenure)
}
