package tests

import (
	"errors"
	"flag"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// upstreamLeak collects publishedMessages from a channel that the upstream TestReconnect never closes.
const upstreamLeak = "github.com/ThreeDotsLabs/watermill/pubsub/tests.TestReconnect.func2"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == cutCommand { // this process is a suite's RestartServiceCommand
		os.Exit(cutNetwork(os.Args[2]))
	}
	// Parallel tests wait most of their time, for time-outs and disks: a processor takes several. -parallel overrides this.
	if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	testkit.Main(m, goleak.IgnoreAnyFunction(upstreamLeak))
}

// house is what the two ends of a test share: a Manager, and an address that its listener gets.
type house struct {
	manager    *buffstreams.Manager
	address    string
	publisher  buffstreams.PublisherConfig
	subscriber buffstreams.SubscriberConfig
}

// newHouse opens the socket first, so that its port is known, at a host of its own, where it can be opened again.
func newHouse(t testing.TB, cfg buffstreams.ManagerConfig) *house {
	t.Helper()
	ln, err := net.Listen("tcp", testkit.Home()+":0")
	require.NoError(t, err)
	var once sync.Once
	cfg.Listen = func(network, address string) (l net.Listener, err error) {
		once.Do(func() { l = ln })
		if l == nil {
			return net.Listen(network, address)
		}
		return l, nil
	}
	if os.Getenv("TESTLOG") != "" {
		cfg.Logger = watermill.NewStdLogger(true, false)
	}
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = time.Second
	}
	m, err := buffstreams.NewManager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := m.Close(); !errors.Is(err, buffstreams.ErrUndelivered) { // many tests leave messages that nobody handles
			require.NoError(t, err)
		}
		_ = ln.Close()
	})
	return &house{
		manager: m, address: ln.Addr().String(),
		publisher: buffstreams.PublisherConfig{Manager: m},
		subscriber: buffstreams.SubscriberConfig{
			Manager: m, ConsumerGroup: "tests", CloseTimeout: time.Second,
			NackResendSleep: time.Millisecond, NackResendCap: 10 * time.Millisecond,
		},
	}
}

func (h *house) topic(name string) string { return h.address + "/" + name }

func (h *house) generateTopic(ctx tests.TestContext) string {
	return h.topic("topic-" + string(ctx.TestID))
}

func (h *house) pubSub(t *testing.T) (message.Publisher, message.Subscriber) {
	return h.groupPubSub(t, h.subscriber.ConsumerGroup)
}

func (h *house) groupPubSub(t *testing.T, group string) (message.Publisher, message.Subscriber) {
	pub, err := buffstreams.NewPublisher(h.publisher, watermill.NopLogger{})
	require.NoError(t, err)
	cfg := h.subscriber
	cfg.ConsumerGroup = group
	sub, err := buffstreams.NewSubscriber(cfg, watermill.NopLogger{})
	require.NoError(t, err)
	return pub, sub
}
