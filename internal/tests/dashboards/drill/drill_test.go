package drill

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// nameable is the time within which the cause and the place of a trouble must be named.
	nameable = time.Minute
	// alerted is the time within which the alert must fire: the slowest needs a message that is five minutes old, for a minute.
	alerted = 8 * time.Minute
	// resolved is the time within which it must end when the trouble has.
	resolved = 6 * time.Minute
)

// trouble is one thing that is broken, in processes of its own.
type trouble struct {
	job       string
	processes []*process
	breaks    func(t *testing.T)
	mends     func(t *testing.T)

	page  func() *process // that names it
	why   string          // a pattern of what the page says: of what, its name, and the reason
	trace string          // a pattern of a span: its name, status and attributes
	query string          // gives the place
	place map[string]string
	check []string // of the command
	says  string   // a pattern of its line
	alert string   // empty: none may fire
}

// outcome is how long a trouble took to be seen.
type outcome struct{ page, metrics, trace, check, alert, end time.Duration }

// Each trouble is named from outside within a minute, and has its alert and no other.
func TestDrill(t *testing.T) {
	if os.Getenv("DRILL") == "" {
		t.Skip("make drill runs it: it takes ten minutes")
	}
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("there is no Prometheus: apt-get install prometheus")
	}
	b := startBrowser(t)
	if b == nil {
		t.Skip("there is no Chromium: make browser installs it")
	}
	c := buildCommand(t)
	troubles := []*trouble{
		killedSubscriber(t), stalledGroup(t), poisonedKey(t), expiredCertificate(t), droppedDNS(t), fullQuota(t), well(t),
	}
	troubles = append(troubles, badDisks(t)...)
	jobs := map[string][]string{}
	for _, tr := range troubles {
		for _, p := range tr.processes {
			jobs[tr.job] = append(jobs[tr.job], p.role.Monitor)
		}
	}
	s := startPrometheus(t, prometheus, jobs)
	settle(t, s, troubles)

	var mu sync.Mutex // guards table
	var table strings.Builder
	table.WriteString("| broken | page | metrics | traces | `check` | alert | seconds | mended |\n|---|---:|---:|---:|---:|---|---:|---:|\n")
	t.Run("all", func(t *testing.T) {
		for _, tr := range troubles {
			t.Run(tr.job, func(t *testing.T) {
				t.Parallel()
				o := tr.run(t, s, b, c)
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintf(&table, "| %s | %.0f | %.0f | %.0f | %.0f | %s | %.0f | %.0f |\n", tr.job, o.page.Seconds(), o.metrics.Seconds(),
					o.trace.Seconds(), o.check.Seconds(), tr.alert, o.alert.Seconds(), o.end.Seconds())
			})
		}
	})
	t.Logf("\n%s", table.String())
}

// settle waits until every process is scraped and has nothing to complain of.
func settle(t *testing.T, s *server, troubles []*trouble) {
	t.Helper()
	_, ok := within(time.Minute, func() bool { return len(s.query("up == 0")) == 0 && len(s.query("up == 1")) > 0 })
	require.True(t, ok, "a process is not scraped")
	for _, tr := range troubles {
		_, quiet := within(time.Minute, func() bool {
			for _, p := range tr.processes {
				if len(p.stuck()) > 0 {
					return false
				}
			}
			return true
		})
		require.True(t, quiet, "%s: %v", tr.job, tr.processes[len(tr.processes)-1].stuck())
	}
}

// run breaks, looks, and mends.
func (tr *trouble) run(t *testing.T, s *server, b *browser, c command) (o outcome) {
	page := &tab{close: func() {}}
	if tr.page != nil {
		page = b.open(t, tr.page())
		defer page.close()
	}
	onTraces := tr.onTraces()
	tr.breaks(t)
	if tr.alert == "" {
		_, fired := within(alerted, func() bool { return len(s.firing(tr.job)) > 0 })
		require.False(t, fired, "%v", s.everFired(tr.job))
		return o
	}
	var looks sync.WaitGroup
	look := func(took *time.Duration, what string, see func() (found bool, last any)) {
		looks.Go(func() { // ends with its time
			var last any
			d, ok := within(nameable, func() (found bool) { found, last = see(); return found })
			if *took = d; !ok {
				t.Errorf("%s: the %s do not name it within a minute: %v", tr.job, what, last)
			}
		})
	}
	look(&o.page, "page", func() (bool, any) {
		all := page.stuck()
		return slices.ContainsFunc(all, regexp.MustCompile(tr.why).MatchString), all
	})
	look(&o.metrics, "metrics", func() (bool, any) {
		found := s.query(tr.query)
		return slices.ContainsFunc(found, func(m map[string]string) bool { return holds(m, tr.place) }), found
	})
	look(&o.check, "check", func() (bool, any) {
		line, code := c.check(tr.check...)
		return code != 0 && regexp.MustCompile(tr.says).MatchString(line), line
	})
	look(&o.trace, "traces", onTraces)
	looks.Wait()
	page.close() // it costs time to draw
	took, ok := within(alerted, func() bool { return slices.Contains(s.firing(tr.job), tr.alert) })
	require.True(t, ok, "%s has not fired, but %v", tr.alert, s.everFired(tr.job))
	o.alert = took + max(o.page, o.metrics, o.check)
	tr.mends(t)
	o.end, ok = within(resolved, func() bool { return len(s.firing(tr.job)) == 0 })
	require.True(t, ok, "%v still fires", s.firing(tr.job))
	require.Equal(t, []string{tr.alert}, s.everFired(tr.job))
	return o
}

// onTraces looks for the reason among the spans that end from now on.
func (tr *trouble) onTraces() func() (found bool, last any) {
	from := make([]int64, len(tr.processes))
	for i, p := range tr.processes {
		_, from[i] = p.spans(0)
	}
	var said string
	return func() (bool, any) {
		for i, p := range tr.processes {
			var all []string
			all, from[i] = p.spans(from[i])
			if slices.ContainsFunc(all, regexp.MustCompile(tr.trace).MatchString) {
				return true, nil
			}
			if len(all) > 0 {
				said = all[len(all)-1]
			}
		}
		return false, said
	}
}

func holds(all, some map[string]string) bool {
	for name, value := range some {
		if all[name] != value {
			return false
		}
	}
	return true
}

// pair is a subscriber and a publisher to it.
func pair(t *testing.T, sub, pub role) (*process, *process) {
	t.Helper()
	if sub.Listen == "" {
		sub.Listen = freeAddress(t)
	}
	s := start(t, sub)
	if pub.Topic == "" {
		pub.Topic = sub.Listen + "/orders"
	}
	pub.Rate = 50
	return s, start(t, pub)
}

// port is that of an address.
func port(address string) string {
	_, p, _ := strings.Cut(address, ":")
	return p
}

// restart is what mends a process that was killed.
func (p *process) restart(t *testing.T) {
	p.kill()
	p.start(t)
}

func well(t *testing.T) *trouble {
	sub, pub := pair(t, role{}, role{})
	return &trouble{job: "well", processes: []*process{sub, pub}, breaks: sub.restart}
}

func killedSubscriber(t *testing.T) *trouble {
	sub, pub := pair(t, role{}, role{})
	return &trouble{
		job: "kill", processes: []*process{sub, pub},
		breaks: func(*testing.T) { sub.kill() }, mends: sub.start,
		page: func() *process { return pub }, why: "^address main to " + sub.role.Listen + ": no connection, and nothing listens there.*refused",
		trace: "^send orders: .*refused.*server.address=" + host().String() + " server.port=" + port(sub.role.Listen),
		query: `buffstreams_address_state{job="kill",state="gone"} == 1`, place: map[string]string{"address": sub.role.Listen},
		check: []string{"connect", sub.role.Listen}, says: "CRITICAL.*refused",
		alert: "BuffstreamsOldestUnsettled",
	}
}

func stalledGroup(t *testing.T) *trouble {
	sub, pub := pair(t, role{Window: 200}, role{})
	return &trouble{
		job: "stall", processes: []*process{sub, pub},
		breaks: func(t *testing.T) { sub.tell(t, stall) }, mends: func(t *testing.T) { sub.tell(t, goOn) },
		page: func() *process { return sub }, why: "^group .*/orders group billing: .*a whole window behind.*its handlers have 16",
		trace: "^send orders: .*billing.*server.address=" + host().String() + " server.port=" + port(sub.role.Listen),
		query: `buffstreams_group_oldest_unsettled_seconds{job="stall"} > 20 and buffstreams_group_in_flight_messages > 0`,
		place: map[string]string{"topic": "orders", "group": "billing"},
		check: []string{"lag", sub.role.Monitor, "-w", "10s", "-c", "20s"}, says: `CRITICAL.*topic "orders" group "billing"`,
		alert: "BuffstreamsGroupBehind",
	}
}

func poisonedKey(t *testing.T) *trouble {
	sub, pub := pair(t, role{Window: 400, PoisonKeys: true}, role{})
	return &trouble{
		job: "key", processes: []*process{sub, pub},
		breaks: func(t *testing.T) { sub.tell(t, poison) }, mends: func(t *testing.T) { sub.tell(t, goOn) },
		page: func() *process { return sub }, why: `^key .*/orders group billing key "bad": `,
		trace: "^process orders: the order cannot be booked; .*delivery.attempt=[0-9]+ .*consumer.group.name=billing .*destination.name=orders",
		query: `buffstreams_group_waiting_for_key_messages{job="key"} > 100 and on (topic, group) rate(buffstreams_redelivered_total{job="key"}[1m]) > 0`,
		place: map[string]string{"topic": "orders", "group": "billing"},
		check: []string{"stuck", sub.role.Monitor}, says: `CRITICAL.*key "bad"`,
		alert: "BuffstreamsGroupBehind",
	}
}

func expiredCertificate(t *testing.T) *trouble {
	const left = 45 * time.Second
	a := newAuthority(t)
	a.sign(t, left)
	expires, address := time.Now().Add(left), freeAddress(t)
	sub, pub := pair(t, role{Listen: "tls://" + address, CertDir: a.dir}, role{CAFile: filepath.Join(a.dir, "ca.pem")})
	return &trouble{
		job: "certificate", processes: []*process{sub, pub},
		breaks: func(t *testing.T) {
			time.Sleep(time.Until(expires) + time.Second) // connections that are there stay
			sub.restart(t)
		},
		mends: func(t *testing.T) { a.sign(t, time.Hour) },
		page:  func() *process { return pub }, why: "^address main to tls://" + address + ": no connection.*expired",
		trace: "^send orders: .*expired.*server.address=" + host().String() + " server.port=" + port(address),
		query: `buffstreams_connect_failures_total{job="certificate",reason="certificate"} > 0`, place: map[string]string{"address": "tls://" + address},
		check: []string{"certificate", "tls://" + address, "--tls-ca", filepath.Join(a.dir, "ca.pem")}, says: "CRITICAL.*expired",
		alert: "BuffstreamsPeerNotTrusted",
	}
}

func droppedDNS(t *testing.T) *trouble {
	names, address := newNameServer(t), freeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	sub, pub := pair(t, role{Listen: address}, role{DNS: names.conn.LocalAddr().String(), Topic: "host.test:" + port})
	return &trouble{
		job: "dns", processes: []*process{sub, pub},
		breaks: func(*testing.T) { names.drops.Store(true) }, mends: func(*testing.T) { names.drops.Store(false) },
		trace: "^resolve orders: .*host.test.*error.type=dns",
		page:  func() *process { return pub }, why: "^topic shop to topic orders: its route cannot be looked up, and the last one is kept .*host.test",
		query: `increase(buffstreams_resolved_total{job="dns",result="failed"}[1m]) > 0`, place: map[string]string{"topic": "orders"},
		check: []string{"stuck", pub.role.Monitor}, says: "WARNING.*topic orders.*host.test",
		alert: "BuffstreamsLookupsFailing",
	}
}

func fullQuota(t *testing.T) *trouble {
	dir := t.TempDir()
	sub, pub := pair(t, role{}, role{Outbox: dir, Quota: 1 << 20})
	return &trouble{
		job: "quota", processes: []*process{sub, pub},
		breaks: func(t *testing.T) { sub.tell(t, stall) }, mends: func(t *testing.T) { sub.tell(t, goOn) },
		page: func() *process { return pub }, why: "^outbox shop in " + dir + "/box for .*" + sub.role.Listen + ".*of its quota are taken",
		trace: "^send orders: .*full: destination .*exceed its quota.*server.address=" + host().String() + " server.port=" + port(sub.role.Listen),
		query: `buffstreams_outbox_pending_bytes{job="quota"} / on (job, instance, outbox) group_left buffstreams_outbox_quota_bytes > 0.8`,
		place: map[string]string{"outbox": dir + "/box", "destination": sub.role.Listen},
		check: []string{"stuck", pub.role.Monitor}, says: "of its quota are taken",
		alert: "BuffstreamsOutboxNearQuota",
	}
}

// badDisks are those that are full and that hang, where file systems can be mounted.
func badDisks(t *testing.T) []*trouble {
	if os.Geteuid() != 0 {
		t.Log("not root: the disks that are full and that hang are left out")
		return nil
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Log("no mkfs.ext4: the disk that hangs is left out")
		return []*trouble{fullDisk(t)}
	}
	return []*trouble{fullDisk(t), hangingDisk(t)}
}

func hangingDisk(t *testing.T) *trouble {
	dir := t.TempDir()
	sub, pub := pair(t, role{}, role{Outbox: dir, Disk: 64 << 20, Hangs: true})
	return &trouble{
		job: "hang", processes: []*process{sub, pub},
		breaks: func(t *testing.T) { pub.tell(t, hang) }, mends: func(t *testing.T) { pub.tell(t, goOn) },
		page: func() *process { return pub }, why: "^outbox shop in " + dir + "/box: a write to its disk has not ended",
		trace: "^send orders: .*a write to the disk has been under way.*error.type=timeout .*server.address=" + host().String(),
		query: `buffstreams_outbox_writing_seconds{job="hang"} > 5`, place: map[string]string{"outbox": dir + "/box"},
		check: []string{"stuck", pub.role.Monitor}, says: "CRITICAL.*/box: a write to its disk has not ended",
		alert: "BuffstreamsOutboxDiskHangs",
	}
}

func fullDisk(t *testing.T) *trouble {
	dir := t.TempDir()
	sub, pub := pair(t, role{}, role{Outbox: dir, Disk: 8 << 20})
	return &trouble{
		job: "disk", processes: []*process{sub, pub},
		breaks: func(t *testing.T) { pub.tell(t, fillDisk) }, mends: pub.restart,
		page: func() *process { return pub }, why: "^outbox shop in " + dir + "/box: it takes nothing any more: .*no space left on device",
		trace: "^send orders: .*no space left on device.*server.address=" + host().String(),
		query: `buffstreams_outbox_failed{job="disk"} == 1`, place: map[string]string{"outbox": dir + "/box"},
		check: []string{"stuck", pub.role.Monitor}, says: "CRITICAL.*no space left on device",
		alert: "BuffstreamsOutboxFailed",
	}
}
