package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/metrics"
	"github.com/buffstreams/watermill-buffstreams/monitor"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/tracing"
)

// roleEnv makes this binary one process of the drill; it holds a role as JSON.
const roleEnv = "DRILL_ROLE"

// role says what a process is.
type role struct {
	Monitor string // where its page and metrics are
	Traces  string // the file of its spans

	// Of a subscriber.
	Listen     string
	Window     int    // messages; 0: the default
	CertDir    string // has cert.pem and key.pem
	PoisonKeys bool   // messages have keys, and the one called "bad" can be poisoned

	// Of a publisher.
	Topic  string
	Rate   int    // messages a second
	CAFile string // of tls:// addresses
	DNS    string // the server that knows host.test, which topics lead to, at the port of Listen
	Outbox string // a directory
	Quota  int64  // of the outbox, in bytes
	Disk   int    // bytes of a file system that is mounted at Outbox
	Hangs  bool   // that file system is on a disk that can hang
}

// Commands that a process reads from its standard input, one a line.
const (
	stall    = "stall"     // handlers ack nothing
	poison   = "poison"    // handlers nack the messages of the key "bad"
	goOn     = "go on"     // handlers ack everything
	fillDisk = "fill disk" // a file takes what is left of Disk
	hang     = "hang"      // Disk answers no write, until goOn
)

func TestMain(m *testing.M) {
	if text := os.Getenv(roleEnv); text != "" {
		var r role
		err := json.Unmarshal([]byte(text), &r)
		if err == nil {
			err = r.run()
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = flag.Set("test.parallel", "16") // they wait, for the most part
	os.Exit(m.Run())
}

// run says "ready" and then obeys, until the process is killed or its input ends.
func (r role) run() error {
	m := metrics.New(metrics.Options{})
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	traces, err := newTracing(r.Traces)
	if err != nil {
		return err
	}
	cfg := buffstreams.ManagerConfig{Hooks: []hooks.Hook{m, traces}}
	watched := monitor.Config{Title: r.Topic + r.Listen}
	var obey func(string) error
	if r.Listen != "" {
		obey, err = r.subscribe(cfg, m, traces, &watched)
	} else {
		obey, err = r.publish(cfg, m, traces, &watched)
	}
	if err != nil {
		return err
	}
	page, err := monitor.New(watched)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/", page)
	ln, err := net.Listen("tcp", r.Monitor)
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(ln, mux) }() // ends with the process
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := obey(lines.Text()); err != nil {
			return err
		}
	}
	return obey(goOn) // a process whose disk hangs could not end
}

// subscribe handles messages of the topic orders as the group billing, behind a Router.
func (r role) subscribe(
	cfg buffstreams.ManagerConfig, m *metrics.Metrics, traces *tracing.Tracing, shown *monitor.Config,
) (func(string) error, error) {
	cfg.Acked.WindowMessages = r.Window
	if r.CertDir != "" {
		tlsCfg, err := buffstreams.TLSFiles{
			Certificate: filepath.Join(r.CertDir, "cert.pem"), Key: filepath.Join(r.CertDir, "key.pem"),
		}.Server()
		if err != nil {
			return nil, err
		}
		cfg.Acked.ServerTLS = tlsCfg
	}
	manager, err := buffstreams.NewManager(cfg)
	if err != nil {
		return nil, err
	}
	m.Watch(manager)
	subscriberCfg := buffstreams.SubscriberConfig{Manager: manager, ConsumerGroup: "billing", MaxInFlight: 16}
	if r.PoisonKeys {
		subscriberCfg.Key = func(msg *message.Message) string { return msg.Metadata.Get("key") }
	}
	sub, err := buffstreams.NewSubscriber(subscriberCfg, nil)
	if err != nil {
		return nil, err
	}
	shown.Managers = map[string]*buffstreams.Manager{"main": manager}
	shown.Subscribers = map[string]*buffstreams.Subscriber{"billing": sub}
	mood := &mood{resumed: make(chan struct{})}
	close(mood.resumed)
	router, err := message.NewRouter(message.RouterConfig{}, nil)
	if err != nil {
		return nil, err
	}
	router.AddMiddleware(traces.Middleware)
	router.AddConsumerHandler("billing", r.Listen+"/orders", traces.Subscriber(sub, "billing"), mood.handle)
	go func() { _ = router.Run(context.Background()) }() // ends with the process
	<-router.Running()
	return mood.obey, nil
}

// mood is what the handlers of a subscriber do.
type mood struct {
	poisoned atomic.Bool

	mu      sync.Mutex // guards resumed
	resumed chan struct{}
}

func (m *mood) handle(msg *message.Message) error {
	m.mu.Lock()
	resumed := m.resumed
	m.mu.Unlock()
	<-resumed
	if m.poisoned.Load() && msg.Metadata.Get("key") == "bad" {
		return errors.New("the order cannot be booked")
	}
	return nil
}

func (m *mood) obey(command string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch command {
	case stall:
		m.resumed = make(chan struct{})
	case poison:
		m.poisoned.Store(true)
	case goOn:
		m.poisoned.Store(false)
		select {
		case <-m.resumed:
		default:
			close(m.resumed)
		}
	}
	return nil
}

// publish publishes to the topic, whatever comes of it.
func (r role) publish(
	cfg buffstreams.ManagerConfig, m *metrics.Metrics, traces *tracing.Tracing, shown *monitor.Config,
) (func(string) error, error) {
	if r.CAFile != "" {
		tlsCfg, err := buffstreams.TLSFiles{CA: r.CAFile}.Client()
		if err != nil {
			return nil, err
		}
		cfg.Acked.ClientTLS = tlsCfg
	}
	manager, err := buffstreams.NewManager(cfg)
	if err != nil {
		return nil, err
	}
	m.Watch(manager)
	publisherCfg := buffstreams.PublisherConfig{Manager: manager, Confirm: buffstreams.ConfirmEnqueued, PublishTimeout: 5 * time.Second}
	topic := r.Topic
	if r.DNS != "" {
		publisherCfg.Resolver = &route.DNS{Address: r.Topic, Route: route.Route{Name: "orders"}, Resolver: r.resolver()}
		topic = "orders"
	}
	obey := func(string) error { return nil }
	if r.Outbox != "" {
		switch {
		case r.Hangs:
			if obey, err = mountHanging(r.Outbox, r.Disk); err != nil {
				return nil, err
			}
		case r.Disk > 0:
			if err := syscall.Mount("tmpfs", r.Outbox, "tmpfs", 0, fmt.Sprintf("size=%d", r.Disk)); err != nil {
				return nil, fmt.Errorf("mount: %w", err)
			}
			obey = func(command string) error { return fill(command, filepath.Join(r.Outbox, "ballast")) }
		}
		box, err := outbox.Open(outbox.Config{
			Dir: filepath.Join(r.Outbox, "box"), QuotaBytes: r.Quota, SegmentBytes: 256 << 10, Hooks: []hooks.Hook{m},
		})
		if err != nil {
			return nil, err
		}
		m.WatchOutbox(box)
		publisherCfg.Outbox, publisherCfg.Confirm = box, buffstreams.ConfirmReceived
	}
	pub, err := buffstreams.NewPublisher(publisherCfg, nil)
	if err != nil {
		return nil, err
	}
	shown.Managers = map[string]*buffstreams.Manager{"main": manager}
	shown.Publishers = map[string]*buffstreams.Publisher{"shop": pub}
	if r.Outbox != "" {
		go r.send(traces.Publisher(pub), topic, r.Rate) // ends with the process
		return obey, nil
	}
	// Calls that do not wait for handlers learn nothing of them: their spans are left out, and some calls wait.
	publisherCfg.Confirm = buffstreams.ConfirmHandled
	waiting, err := buffstreams.NewPublisher(publisherCfg, nil)
	if err != nil {
		return nil, err
	}
	go r.send(pub, topic, r.Rate) // both end with the process
	go r.send(traces.Publisher(waiting), topic, 1)
	return obey, nil
}

func (r role) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", r.DNS)
	}}
}

func (r role) send(pub message.Publisher, topic string, rate int) {
	keys := strings.Fields("bad good better best")
	ticks := time.NewTicker(time.Second / time.Duration(rate))
	for i := 0; ; i++ {
		<-ticks.C
		msg := message.NewMessage(watermill.NewUUID(), make([]byte, 1024))
		msg.Metadata.Set("key", keys[i%len(keys)])
		_ = pub.Publish(topic, msg) // what is wrong is to be seen from outside
	}
}
