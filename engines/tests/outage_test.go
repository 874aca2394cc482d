package tests

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
)

// outage is an engine whose servers a test can stop.
type outage struct {
	*subject
	// signal sends a signal to all of its processes; kill ends them as kill -9 does, and restart starts them again.
	signal  func(syscall.Signal)
	kill    func()
	restart func()
}

// subjectAt is an engine of subjects at another address.
func subjectAt(name, base string) *subject {
	for _, s := range subjects() {
		if s.name == name {
			s.base = func(*testing.T) string { return base }
			return s
		}
	}
	return nil
}

func natsOutage(t *testing.T) *outage {
	nodes := startNodeProcesses(t)
	return &outage{
		subject: subjectAt("nats", "nats://"+nodes.hosts),
		signal: func(s syscall.Signal) {
			for _, c := range nodes.children {
				_ = c.Process.Signal(s)
			}
		},
		kill: func() {
			for _, c := range nodes.children {
				c.kill()
			}
		},
		restart: func() {
			for i := range nodes.children {
				nodes.children[i] = startChild(t, "nats-node", nodes.env[i]...)
			}
			for _, c := range nodes.children {
				require.Equal(t, "ready", c.next(t))
			}
		},
	}
}

// programOutage is that of another program. The test is skipped where there is none.
func programOutage(t *testing.T, p *program, err error, name, base string) *outage {
	if err != nil {
		t.Skipf("there is no server of %s: %v", name, err)
	}
	t.Cleanup(p.stop)
	return &outage{
		subject: subjectAt(name, fmt.Sprintf(base, p.address())),
		signal:  p.signal, kill: p.kill, restart: func() { require.NoError(t, p.start()) },
	}
}

func outages() map[string]func(*testing.T) *outage {
	return map[string]func(*testing.T) *outage{
		"nats": natsOutage, "kafka": kafkaOutage,
		"redis": func(t *testing.T) *outage {
			p, err := newRedis("", "--appendfsync", "always")
			return programOutage(t, p, err, "redis", "redis://%s/0")
		},
		"amqp": func(t *testing.T) *outage {
			p, err := newRabbitMQ("", "")
			if err != nil {
				p = &rabbitMQ{program: &program{}}
			}
			return programOutage(t, p.program, err, "amqp", "amqp://%s/")
		},
		"postgres": func(t *testing.T) *outage {
			p, err := newPostgres("")
			return programOutage(t, p, err, "postgres", "postgres://postgres@%s/postgres")
		},
	}
}

// stopped is how long an engine is stopped: ENGINES_OUTAGE, or as long as the run has time for.
func stopped() time.Duration {
	if given, err := time.ParseDuration(os.Getenv("ENGINES_OUTAGE")); err == nil {
		return given
	}
	if os.Getenv(withServers) != "" {
		return 30 * time.Second
	}
	return 3 * time.Second
}

// eachOutage runs a test with each engine, once stopped and once killed.
func eachOutage(t *testing.T, test func(t *testing.T, o *outage, strike func())) {
	for _, name := range slices.Sorted(maps.Keys(outages())) {
		if only := only(); only != "" && !strings.Contains(","+only+",", ","+name+",") {
			continue
		}
		for _, how := range []string{"stopped", "killed"} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				o := outages()[name](t)
				test(t, o, func() {
					began := time.Now()
					if how == "stopped" {
						o.signal(syscall.SIGSTOP)
						time.Sleep(stopped()) // real time is the subject
						o.signal(syscall.SIGCONT)
					} else {
						o.kill()
						time.Sleep(2 * time.Second)
						o.restart()
					}
					t.Logf("%s for %v", how, time.Since(began).Round(time.Second))
				})
			})
		}
	}
}

// lines counts the lines of a log.
type lines struct {
	t     *testing.T
	mu    sync.Mutex
	n     map[string]int
	began time.Time // of the first
}

func (l *lines) count(msg string, err error, fields watermill.LogFields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n, l.began = map[string]int{}, time.Now()
	}
	l.n[msg]++
	l.t.Logf("log: %s: %.300v %v", msg, err, fields)
}

func (l *lines) Error(msg string, err error, fields watermill.LogFields) { l.count(msg, err, fields) }
func (l *lines) Info(string, watermill.LogFields)                        {}
func (l *lines) Debug(string, watermill.LogFields)                       {}
func (l *lines) Trace(string, watermill.LogFields)                       {}
func (l *lines) With(watermill.LogFields) watermill.LoggerAdapter        { return l }

// assertFew fails where a line comes again and again: more than once for each cause, and each minute, of each of two lanes.
func (l *lines) assertFew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for msg, n := range l.n {
		assert.LessOrEqual(l.t, n, 4+2*int(time.Since(l.began).Minutes()), "%s", msg)
	}
}

// otherThan is an engine of this process for the other end of a bridge: one that can look back, and drops no IDs itself.
func otherThan(t *testing.T, o *outage) *fixture {
	kafka, nats := lastingPair(t)
	if o.name == "kafka" {
		return nats
	}
	return kafka
}

// TestOutage_OfTheDestination: a bridge whose destination is away for a while goes on by itself. Nothing is lost, each key keeps
// its order, and nothing is there twice where the engine can tell.
func TestOutage_OfTheDestination(t *testing.T) {
	eachOutage(t, func(t *testing.T, o *outage, strike func()) {
		testBridgeOutage(t, otherThan(t, o), &fixture{T: t, subject: o.subject, base: o.base(t), topic: "to-" + watermill.NewShortUUID()}, o, strike)
	})
}

// TestOutage_OfTheSource is the same of the other end.
func TestOutage_OfTheSource(t *testing.T) {
	eachOutage(t, func(t *testing.T, o *outage, strike func()) {
		testBridgeOutage(t, &fixture{T: t, subject: o.subject, base: o.base(t), topic: "from-" + watermill.NewShortUUID()}, otherThan(t, o), o, strike)
	})
}

func testBridgeOutage(t *testing.T, from, to *fixture, o *outage, strike func()) {
	const n, keys = 8000, 50
	if from.name == "amqp" { // it has messages for groups that are there
		sub, err := from.open("members=1").Group("bridge") // as the bridge has it
		require.NoError(t, err)
		require.NoError(t, sub.(message.SubscribeInitializer).SubscribeInitialize(from.topic))
	}
	source := from.open("key=k")
	destination := to.open("group=reader&max_in_flight=1000" + to.slow())
	if to.name == "amqp" {
		sub, err := destination.Group("reader")
		require.NoError(t, err)
		require.NoError(t, sub.(message.SubscribeInitializer).SubscribeInitialize(to.topic))
	}
	from.publish(source, 0, n, keys)
	log := &lines{t: t}
	b, _ := runBridge(t, bridge.Config{
		From: from.url(""), To: to.url(""), Topics: []bridge.Topic{{From: from.topic, To: to.topic}}, Key: "k", MaxInFlight: 200, Batch: 20, Logger: log,
		Hooks: bridge.Hooks{OnForward: func(bridge.Topic, int, int, time.Duration) {
			time.Sleep(10 * time.Millisecond) // else all is over before the strike
		}},
	})
	require.Eventually(t, func() bool { return b.Stats().Forwarded > n/4 }, patience, time.Millisecond)
	strike()
	began := time.Now()
	require.Eventually(t, func() bool { s := b.Stats(); return s.Forwarded+s.Skipped >= n && s.InHand == 0 }, 2*patience, 10*time.Millisecond, "%+v", b.Stats())
	t.Logf("all are through %v after the end of the outage: %+v", time.Since(began).Round(time.Millisecond), b.Stats())
	arrived := to.subscribe(destination, "reader")
	a := take(t, arrived, n)
	a.drain(arrived, 300*time.Millisecond)
	twice := 0
	for _, times := range a.seen {
		twice += times - 1
	}
	t.Logf("%d of %d came twice", twice, n)
	if to.name != "amqp" && from.name != "amqp" {
		assert.Zero(t, twice)
	}
	a.assertOrder(t)
	log.assertFew()
}

// drain takes what comes until nothing comes for a time.
func (a account) drain(messages <-chan *message.Message, quiet time.Duration) {
	for {
		select {
		case msg := <-messages:
			a.add(msg)
		case <-time.After(quiet):
			return
		}
	}
}

// assertOrder fails unless the first arrivals of each key are in order.
func (a account) assertOrder(t *testing.T) {
	t.Helper()
	for key, numbers := range a.order {
		last := -1
		seen := map[int]bool{}
		for _, number := range numbers {
			if seen[number] {
				continue
			}
			seen[number] = true
			if !assert.Greater(t, number, last, "key %s", key) {
				return
			}
			last = number
		}
	}
}

// TestOutage_OfAnApplicationsEngine: a publisher and a subscriber go on by themselves. What Publish has confirmed arrives, in
// order by key.
func TestOutage_OfAnApplicationsEngine(t *testing.T) {
	eachOutage(t, func(t *testing.T, o *outage, strike func()) {
		f := &fixture{T: t, subject: o.subject, base: o.base(t), topic: "app-" + watermill.NewShortUUID()}
		log := &lines{t: t}
		parameters := "group=g&max_in_flight=20&publish_timeout=10s&key=k"
		e := f.openLogged(parameters, log)
		arrived := f.subscribe(e, "g")
		stop := make(chan struct{})
		published := make(chan int)
		go func() { // ends with stop
			i, failures := 0, 0
			for ; ; i++ {
				msg := messageOf(strconv.Itoa(i))
				msg.Metadata.Set("k", strconv.Itoa(i%10))
				for e.Publisher().Publish(f.topic, msg) != nil { // as an application does
					failures++
					time.Sleep(50 * time.Millisecond)
				}
				select {
				case <-stop:
					t.Logf("%d Publish calls failed", failures)
					published <- i + 1
					return
				case <-time.After(time.Millisecond):
				}
			}
		}()
		a := take(t, arrived, 300)
		struck := make(chan struct{})
		go func() { // ends with the outage
			defer close(struck)
			strike()
		}()
		for waiting := true; waiting; {
			select {
			case msg := <-arrived:
				a.add(msg)
			case <-struck:
				waiting = false
			}
		}
		more := len(a.seen) + 300
		began := time.Now()
		for len(a.seen) < more {
			a.add(receive(t, arrived))
		}
		t.Logf("it goes on %v after the end of the outage", time.Since(began).Round(time.Millisecond))
		close(stop)
		var n int
		for n == 0 {
			select {
			case n = <-published:
			case msg := <-arrived:
				a.add(msg)
			}
		}
		for len(a.seen) < n {
			a.add(receive(t, arrived))
		}
		a.assertOrder(t)
		log.assertFew()
	})
}
