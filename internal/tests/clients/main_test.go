package clients

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// A process of the Go library is this test's own program again: the arguments are those of the other clients' peers.
const asPeer = "BUFFSTREAMS_TEST_PEER"

// tlsDir is the variable with the directory of ca.pem, cert.pem and key.pem. Where it is set, peers use TLS, and a token.
const tlsDir, token = "BUFFSTREAMS_TEST_TLS", "secret"

// peerConfig is the configuration of a peer's Manager, and what goes before its address.
func peerConfig() (cfg buffstreams.ManagerConfig, scheme string, err error) {
	dir := os.Getenv(tlsDir)
	if dir == "" {
		return cfg, "", nil
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return cfg, "", err
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return cfg, "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cfg.Acked = buffstreams.AckedConfig{
		ClientTLS: &tls.Config{RootCAs: roots}, ServerTLS: &tls.Config{Certificates: []tls.Certificate{certificate}},
		Token: buffstreams.StaticToken(token), Authenticate: buffstreams.Tokens(map[string]string{token: "peer"}),
	}
	return cfg, "tls://", nil
}

func TestMain(m *testing.M) {
	if os.Getenv(asPeer) == "" {
		flag.Parse()
		_ = flag.Set("test.parallel", "6") // tests that wait for processes and backoffs most of their time
		code := m.Run()
		typescript.remove()
		os.Exit(code)
	}
	if err := peerMain(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func peerMain(args []string) error {
	numbers := make([]int, 2)
	for i, arg := range args[3:] {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	address, topic := args[1], args[2]
	switch args[0] {
	case "pub":
		return pubLines(address, topic)
	case "sub":
		return subLines(address, topic, 0)
	case "take":
		return subLines(address, topic, numbers[0])
	default:
		return sendMany(address+"/"+topic, numbers[0], numbers[1])
	}
}

// pubLines publishes each line of the input, and says which were handled.
func pubLines(address, topic string) error {
	cfg, scheme, err := peerConfig()
	if err != nil {
		return err
	}
	if os.Getenv("BUFFSTREAMS_TEST_LOG") != "" {
		cfg.Logger = watermill.NewStdLoggerWithOut(os.Stderr, true, true)
	}
	manager, err := buffstreams.NewManager(cfg)
	if err != nil {
		return err
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: manager, Confirm: buffstreams.ConfirmHandled, PublishTimeout: 2 * time.Minute,
		Resolver: route.Static{topic: {Addresses: strings.Split(address, ","), Policy: route.Failover}},
	}, nil)
	if err != nil {
		return err
	}
	if !strings.Contains(address, ",") { // several are a route
		topic = scheme + address + "/" + topic
	}
	var said sync.Mutex
	var calls sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		calls.Go(func() {
			err := pub.Publish(topic, message.NewMessage(line, []byte(line)))
			said.Lock()
			defer said.Unlock()
			if err == nil {
				fmt.Println("ok " + line)
			} else {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	calls.Wait()
	return errors.Join(pub.Close(), manager.Close())
}

// subLines says what it receives, and acks it; with a count it says how fast so many came.
func subLines(address, topic string, count int) error {
	ln, err := net.Listen("tcp", address) // before the Manager does: the address has port 0
	if err != nil {
		return err
	}
	cfg, scheme, err := peerConfig()
	if err != nil {
		return err
	}
	cfg.Listen = func(string, string) (net.Listener, error) { return ln, nil }
	manager, err := buffstreams.NewManager(cfg)
	if err != nil {
		return err
	}
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: manager, MaxInFlight: 256, CloseTimeout: 5 * time.Second}, nil)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	messages, err := sub.Subscribe(ctx, scheme+ln.Addr().String()+"/"+topic)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return err
	}
	fmt.Println("listening", port)
	var begin time.Time
	taken := 0
	for msg := range messages {
		if count == 0 {
			fmt.Println(string(msg.Payload))
		} else if taken++; taken == 1 {
			begin = time.Now()
		}
		msg.Ack()
		if count > 0 && taken == count {
			fmt.Printf("%.0f\n", float64(count)/time.Since(begin).Seconds())
			break
		}
	}
	_ = sub.Close() // what is left is the senders'
	return manager.Close()
}

func sendMany(topic string, count, size int) error {
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Confirm: buffstreams.ConfirmEnqueued}, nil)
	if err != nil {
		return err
	}
	begin := time.Now()
	payload := make([]byte, size)
	batch := make([]*message.Message, 500)
	for i := range batch {
		batch[i] = message.NewMessage("x", payload)
	}
	for sent := 0; sent < count; sent += len(batch) {
		if err := pub.Publish(topic, batch...); err != nil {
			return err
		}
	}
	if err := pub.Close(); err != nil {
		return err
	}
	fmt.Printf("%.0f\n", float64(count)/time.Since(begin).Seconds())
	return nil
}
