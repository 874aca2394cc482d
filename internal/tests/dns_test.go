package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// dnsServer is a DNS server on loopback, over UDP and TCP at one port.
type dnsServer struct {
	resolver *net.Resolver
	queries  atomic.Int64 // for the types that records has
	overTCP  atomic.Int64

	mu      sync.Mutex // guards the fields below
	records map[uint16][]string
	rcode   int
	silent  bool
}

func newDNSServer(t *testing.T) *dnsServer {
	s := &dnsServer{records: map[uint16][]string{}}
	packets, stream := listenTwice(t)
	udp := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.answer(w, q, false) })}
	tcp := &dns.Server{Listener: stream, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.answer(w, q, true) })}
	for _, one := range []*dns.Server{udp, tcp} {
		ready := make(chan struct{})
		one.NotifyStartedFunc = func() { close(ready) }
		ended := later(one.ActivateAndServe)
		<-ready
		t.Cleanup(func() {
			require.NoError(t, one.Shutdown())
			require.NoError(t, requireResult(t, ended))
		})
	}
	s.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, packets.LocalAddr().String())
		if err == nil { // package net goes on waiting for an answer when its caller has gone
			context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}}
	return s
}

// listenTwice returns sockets of both networks at one port.
func listenTwice(t *testing.T) (net.PacketConn, net.Listener) {
	for {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		stream, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, stream
		}
		require.NoError(t, packets.Close()) // the port is taken on the other network
	}
}

// set makes these the only records of a type.
func (s *dnsServer) set(kind uint16, values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[kind] = values
}

// behave makes the server answer with an rcode, or not at all.
func (s *dnsServer) behave(rcode int, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcode, s.silent = rcode, silent
}

func (s *dnsServer) answer(w dns.ResponseWriter, q *dns.Msg, overTCP bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	question := q.Question[0]
	if len(s.records[question.Qtype]) > 0 || s.rcode != 0 || s.silent {
		s.queries.Add(1)
	}
	if s.silent {
		return
	}
	reply := new(dns.Msg)
	reply.SetRcode(q, s.rcode)
	for _, value := range s.records[question.Qtype] {
		rr, err := dns.NewRR(fmt.Sprintf("%s 1 IN %s %s", question.Name, dns.TypeToString[question.Qtype], value))
		if err != nil {
			panic(err)
		}
		reply.Answer = append(reply.Answer, rr)
	}
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = int(opt.UDPSize())
	}
	if overTCP {
		s.overTCP.Add(1)
		size = dns.MaxMsgSize
	}
	reply.Truncate(size)
	_ = w.WriteMsg(reply)
}

// resolveIn resolves with a time-out.
func resolveIn(t *testing.T, r route.Resolver, timeout time.Duration) (route.Route, error) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return r.Resolve(ctx, "orders")
}

func TestDNS_EveryRecordIsAnAddress(t *testing.T) {
	s := newDNSServer(t)
	s.set(dns.TypeA, "10.0.0.2", "10.0.0.1", "10.0.0.2")
	s.set(dns.TypeAAAA, "2001:db8::1")
	d := &route.DNS{Address: "orders.test:5031", Route: route.Route{Policy: route.Hash, HashKey: "k", Name: "n"}, Resolver: s.resolver}
	got, err := resolveIn(t, d, patience)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"10.0.0.1:5031", "10.0.0.2:5031", "[2001:db8::1]:5031"}, got.Addresses)
	require.Equal(t, "n", got.Name)
	require.Equal(t, route.Hash, got.Policy)
	require.NoError(t, got.Validate())

	secure := &route.DNS{Address: "tls://orders.test:5031", Resolver: s.resolver}
	got, err = resolveIn(t, secure, patience)
	require.NoError(t, err)
	require.Equal(t, "orders.test", got.Attributes["tls://10.0.0.1:5031"].ServerName)
}

// TestDNS_ManyRecords do not fit into a datagram: the answer is truncated, and comes over TCP.
func TestDNS_ManyRecords(t *testing.T) {
	s := newDNSServer(t)
	var ips []string
	for i := range 200 {
		ips = append(ips, fmt.Sprintf("10.0.%d.%d", i/100, i%100))
	}
	s.set(dns.TypeA, ips...)
	got, err := resolveIn(t, &route.DNS{Address: "orders.test:1", Resolver: s.resolver}, patience)
	require.NoError(t, err)
	require.Len(t, got.Addresses, 200)
	require.Positive(t, s.overTCP.Load())
}

func TestDNS_FailuresAreErrorsInTime(t *testing.T) {
	s := newDNSServer(t)
	for name, behave := range map[string]func(){
		"NXDOMAIN": func() { s.behave(dns.RcodeNameError, false) },
		"SERVFAIL": func() { s.behave(dns.RcodeServerFailure, false) },
		"silence":  func() { s.behave(0, true) },
	} {
		t.Run(name, func(t *testing.T) {
			behave()
			for _, r := range []route.Resolver{
				&route.DNS{Address: "orders.test:1", Resolver: s.resolver},
				&route.SRV{Service: "orders", Proto: "tcp", Name: "test", Resolver: s.resolver},
			} {
				began := time.Now()
				_, err := resolveIn(t, r, 300*time.Millisecond)
				failed := (*net.DNSError)(nil)
				require.ErrorAs(t, err, &failed)
				require.Contains(t, err.Error(), "test", "it says what was looked up")
				require.Less(t, time.Since(began), 4*time.Second, "the resolver itself takes 5 s")
			}
		})
	}
}

// TestDNS_TopicsShareALookup: package net shares those of a host, but not those of a service.
func TestDNS_TopicsShareALookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		answer := make(chan struct{})
		r := &route.SRV{Service: "orders", Proto: "tcp", Name: "test", Resolver: &net.Resolver{
			PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				<-answer
				return nil, errors.New("there is no server")
			},
		}}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := resolveIn(t, r, patience); err == nil {
					t.Error("it has an answer")
				}
			})
		}
		synctest.Wait() // all wait for the server
		require.EqualValues(t, 1, dials.Load())
		close(answer)
		wg.Wait()
	})
}

func TestSRV_PrioritiesAndWeights(t *testing.T) {
	s := newDNSServer(t)
	s.set(dns.TypeSRV, "1 10 5031 a.test.", "1 30 5032 b.test.", "2 0 5033 c.test.")
	var got route.Route
	for range 10 { // package net shuffles them
		var err error
		r := &route.SRV{Service: "orders", Proto: "tcp", Name: "test", Route: route.Route{Policy: route.RoundRobin}, Resolver: s.resolver}
		got, err = resolveIn(t, r, patience)
		require.NoError(t, err)
		require.Equal(t, []string{"a.test:5031", "b.test:5032", "c.test:5033"}, got.Addresses)
	}
	require.Equal(t, route.Attributes{Priority: 1, Weight: 30}, got.Attributes["b.test:5032"])
	require.Equal(t, 2, got.Attributes["c.test:5033"].Priority)

	got, err := resolveIn(t, &route.SRV{Service: "orders", Proto: "tcp", Name: "test", TLS: true, Resolver: s.resolver}, patience)
	require.NoError(t, err)
	require.Equal(t, []string{"tls://a.test:5031", "tls://b.test:5032", "tls://c.test:5033"}, got.Addresses)
	require.Equal(t, route.Attributes{Priority: 1, Weight: 30}, got.Attributes["tls://b.test:5032"])

	s.set(dns.TypeSRV, "0 0 0 .")
	_, err = resolveIn(t, &route.SRV{Service: "orders", Proto: "tcp", Name: "test", Resolver: s.resolver}, patience)
	require.Error(t, err, "the service is not available")
}

// byName returns a publisher of "orders" to the host of a DNS server, at the port of an address.
func byName(t *testing.T, s *dnsServer, address string, policy route.Policy, timeout time.Duration) *buffstreams.Publisher {
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver:       &route.DNS{Address: net.JoinHostPort("orders.test", port), Route: route.Route{Policy: policy}, Resolver: s.resolver},
		PublishTimeout: timeout, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

// TestPublisher_LooksATopicUpOnce, not at every Publish, and goes on while the Resolver fails.
func TestPublisher_LooksATopicUpOnce(t *testing.T) {
	addresses := []string{freeAddress(t), freeAddress(t)}
	got := []*atomic.Int64{counting(t, addresses[0]), counting(t, addresses[1])}
	var lookups atomic.Int64
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.Func(func(context.Context, string) (route.Route, error) {
			if lookups.Add(1) > 1 {
				return route.Route{}, errors.New("the Resolver fails")
			}
			return route.Route{Addresses: addresses, Policy: route.RoundRobin}, nil
		}),
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	require.NoError(t, pub.Publish("orders", newMessages(2)...))
	awaitReady(t, pub)
	require.NoError(t, pub.Drain(t.Context()))
	before := []int64{got[0].Load(), got[1].Load()}
	for range 100 {
		require.NoError(t, pub.Publish("orders", newMessage("x")))
	}
	require.EqualValues(t, 1, lookups.Load())
	require.NoError(t, pub.Drain(t.Context()))
	for i := range got {
		require.InDelta(t, 50, got[i].Load()-before[i], 1)
	}
}

// TestPublisher_AsksAgainWhenAnAddressFails, and keeps the route when it learns nothing.
func TestPublisher_AsksAgainWhenAnAddressFails(t *testing.T) {
	dead, alive := freeAddress(t), freeAddress(t)
	got := counting(t, alive)
	s := newDNSServer(t)
	s.set(dns.TypeSRV, srv(t, dead), srv(t, alive))
	s.set(dns.TypeA, "127.0.0.1") // Dial goes elsewhere
	records := &route.SRV{Service: "orders", Proto: "tcp", Name: "test", Route: route.Route{Policy: route.RoundRobin}, Resolver: s.resolver}
	var lookups, failed atomic.Int64
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.Func(func(ctx context.Context, topic string) (route.Route, error) {
			if lookups.Add(1) == 2 {
				s.behave(dns.RcodeServerFailure, false)
			}
			found, err := records.Resolve(ctx, topic)
			if err != nil {
				failed.Add(1)
			}
			return found, err
		}),
		ManagerConfig: buffstreams.ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if _, port, _ := net.SplitHostPort(address); strings.HasSuffix(alive, ":"+port) {
				return (&net.Dialer{}).DialContext(ctx, network, alive)
			}
			return (&net.Dialer{}).DialContext(ctx, network, dead)
		}},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	require.Eventually(t, func() bool { return failed.Load() > 0 }, patience, 10*time.Millisecond)
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	require.Eventually(t, func() bool { return got.Load() == 2 }, patience, time.Millisecond)
}

func hostOf(t *testing.T, address string) string {
	host, _, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return host
}

// srv is the record of an address.
func srv(t *testing.T, address string) string {
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return fmt.Sprintf("1 1 %s host.test.", port)
}

// TestPublisher_WaitsForTheDNS, up to PublishTimeout, and tries again meanwhile.
func TestPublisher_WaitsForTheDNS(t *testing.T) {
	for name, rcode := range map[string]int{"SERVFAIL": dns.RcodeServerFailure, "NXDOMAIN": dns.RcodeNameError} {
		t.Run(name, func(t *testing.T) {
			s := newDNSServer(t)
			s.behave(rcode, false)
			address := freeAddress(t)
			counting(t, address)
			published := later(func() error {
				return byName(t, s, address, route.Failover, patience).Publish("orders", newMessage("x"))
			})
			require.Eventually(t, func() bool { return s.queries.Load() > 2 }, patience, time.Millisecond)
			s.set(dns.TypeA, hostOf(t, address))
			s.behave(0, false)
			require.NoError(t, requireResult(t, published))
		})
	}
	t.Run("silence", func(t *testing.T) {
		s := newDNSServer(t)
		s.behave(0, true)
		began := time.Now()
		err := byName(t, s, freeAddress(t), route.Failover, 300*time.Millisecond).Publish("orders", newMessage("x"))
		require.ErrorIs(t, err, buffstreams.ErrTimeout)
		require.Less(t, time.Since(began), 4*time.Second, "the resolver itself takes 5 s")
	})
}

// TestPublisher_FollowsAnAddressThatChanges: the old host dies, and the name leads to another one. Then the name vanishes,
// which changes nothing.
func TestPublisher_FollowsAnAddressThatChanges(t *testing.T) {
	s, address := newDNSServer(t), freeAddress(t)
	s.set(dns.TypeA, hostOf(t, address))
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	ps, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: address}, nil)
	require.NoError(t, err)
	messages := subscribe(t, ps, "orders")
	pub := byName(t, s, address, route.Failover, patience)
	published := later(func() error { return pub.Publish("orders", newMessage("x")) })
	receive(t, messages).Ack()
	require.NoError(t, requireResult(t, published))
	require.NoError(t, pub.Drain(t.Context()))

	second := counting(t, net.JoinHostPort("127.0.0.2", port))
	s.set(dns.TypeA, "127.0.0.2")
	require.NoError(t, ps.Close())
	require.NoError(t, pub.Publish("orders", newMessage("y")))
	require.Eventually(t, func() bool { return second.Load() == 1 }, patience, time.Millisecond)

	s.behave(dns.RcodeNameError, false)
	require.NoError(t, pub.Publish("orders", newMessage("z")))
	require.Eventually(t, func() bool { return second.Load() == 2 }, patience, time.Millisecond)
}
