package monitor_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/monitor"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 30 * time.Second

// world is a process that publishes to itself.
type world struct {
	manager   *buffstreams.Manager
	publisher *buffstreams.Publisher
	sub       *buffstreams.Subscriber
	messages  <-chan *message.Message
	topic     string
}

func newWorld(t *testing.T, cfg buffstreams.ManagerConfig) *world {
	t.Helper()
	w := &world{}
	var err error
	cfg.CloseTimeout = 100 * time.Millisecond
	w.manager, err = buffstreams.NewManager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.manager.Close() }) // messages may be left on purpose
	w.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: w.manager, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.publisher.Close() })
	w.sub, err = buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: w.manager, ConsumerGroup: "billing", CloseTimeout: time.Millisecond, MaxInFlight: 10,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.sub.Close() })
	w.messages, err = w.sub.Subscribe(t.Context(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	at, err := w.sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	w.topic = at.String() + "/orders"
	return w
}

func (w *world) monitor(t *testing.T, cfg monitor.Config) *monitor.Monitor {
	t.Helper()
	cfg.Managers = map[string]*buffstreams.Manager{"main": w.manager}
	if cfg.Publishers == nil {
		cfg.Publishers = map[string]*buffstreams.Publisher{"pub": w.publisher}
	}
	cfg.Subscribers = map[string]*buffstreams.Subscriber{"sub": w.sub}
	m, err := monitor.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// get asks the handler as if from an address.
func get(m http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	r.RemoteAddr, r.Host = "127.0.0.1:1000", "127.0.0.1:8080"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w
}

func getStats(t *testing.T, m http.Handler, query string) (s monitor.Stats) {
	t.Helper()
	w := get(m, "/stats"+query)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &s))
	return s
}

func TestStats_ShowsWhatRuns(t *testing.T) {
	w := newWorld(t, buffstreams.ManagerConfig{})
	m := w.monitor(t, monitor.Config{Title: "Orders", StuckAfter: 50 * time.Millisecond})
	for range 5 {
		require.NoError(t, w.publisher.Publish(w.topic, message.NewMessage("", []byte("x"))))
	}
	(<-w.messages).Ack()
	held := <-w.messages
	var s monitor.Stats
	what := map[string]string{}
	require.Eventually(t, func() bool {
		s = getStats(t, m, "")
		for _, one := range s.Stuck {
			what[one.What] = one.Name + ": " + one.Why
		}
		return len(s.Listeners) == 1 && len(s.Listeners[0].Topics) == 1 && s.Listeners[0].Topics[0].Groups[0].Lag == 4 &&
			what["group"] != "" && what["address"] != "" // each is shown once its own oldest message is old
	}, limit, 50*time.Millisecond)
	require.Equal(t, monitor.Version, s.Version)
	require.Equal(t, "Orders", s.Title)
	require.True(t, s.Ready)
	require.Empty(t, s.NotReady)
	require.Len(t, s.Addresses, 1, "the publisher's is the manager's")
	require.Equal(t, "main", s.Addresses[0].Source)
	require.Equal(t, "ready", s.Addresses[0].State)
	require.EqualValues(t, 5, s.Addresses[0].Sent)
	group := s.Listeners[0].Topics[0].Groups[0]
	require.Equal(t, "billing", group.Group)
	require.EqualValues(t, 1, group.Settled)
	require.Len(t, s.Listeners[0].Peers, 1)
	require.Len(t, s.Subscriptions, 1)
	require.Len(t, s.Memory, 1)
	require.Contains(t, what["group"], "group billing: its oldest message is not settled; 4 messages wait")
	require.Contains(t, what["address"], "connected, but the oldest message is not settled")
	held.Ack()
}

func TestStats_NamesThePeerThatIsAway(t *testing.T) {
	w := newWorld(t, buffstreams.ManagerConfig{})
	m := w.monitor(t, monitor.Config{})
	const away = "127.0.0.1:1" // where nothing listens
	require.NoError(t, w.publisher.Publish(away+"/t", message.NewMessage("", []byte("x"))))
	var s monitor.Stats
	require.Eventually(t, func() bool {
		s = getStats(t, m, "")
		return len(s.Stuck) == 1 && !s.Ready && s.Stuck[0].Name == "main to "+away // "pub to", before the Manager is looked at anew
	}, limit, 50*time.Millisecond)
	require.True(t, s.Stuck[0].Critical)
	require.Contains(t, s.Stuck[0].Why, "refused")
	require.Contains(t, s.Stuck[0].Why, "1 message waits")

	ready := get(m, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, ready.Code)
	require.Contains(t, ready.Body.String(), "publisher pub: ")
	require.Contains(t, ready.Body.String(), away)
	ready = get(m, "/readyz", from("192.0.2.1:1"))
	require.Equal(t, http.StatusServiceUnavailable, ready.Code)
	require.Equal(t, "not ready\n", ready.Body.String(), "names are not for everybody")
}

func TestReadyz_WaitsForReady(t *testing.T) {
	ready := make(chan struct{})
	w := newWorld(t, buffstreams.ManagerConfig{Ready: ready})
	m := w.monitor(t, monitor.Config{})
	answer := get(m, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
	require.Contains(t, answer.Body.String(), "\nmanager main: ")
	require.Contains(t, answer.Body.String(), "\nsubscriber sub: ")
	require.Equal(t, http.StatusOK, get(m, "/livez").Code)
	require.Contains(t, getStats(t, m, "").Stuck[0].Why, "Ready channel")
	close(ready)
	require.Eventually(t, func() bool { return get(m, "/readyz").Code == http.StatusOK }, limit, 50*time.Millisecond)
}

func from(address string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = address }
}

func header(key, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(key, value) }
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func TestAccess(t *testing.T) {
	w := newWorld(t, buffstreams.ManagerConfig{})
	open := w.monitor(t, monitor.Config{})
	token := w.monitor(t, monitor.Config{Token: "hush"})
	insecure := w.monitor(t, monitor.Config{Insecure: true})
	far := from("192.0.2.1:1000")
	verified := func(r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}
	}
	for name, test := range map[string]struct {
		m      http.Handler
		change []func(*http.Request)
		code   int
	}{
		"this machine":                    {open, nil, 200},
		"this machine, IPv6":              {open, []func(*http.Request){from("[::1]:1"), host("[::1]:8080")}, 200},
		"this machine by name":            {open, []func(*http.Request){host("LocalHost:1")}, 200},
		"this machine at its usual port":  {open, []func(*http.Request){host("localhost")}, 200},
		"so too by IPv6":                  {open, []func(*http.Request){host("[::1]")}, 200},
		"another name without a port":     {open, []func(*http.Request){host("evil.example")}, 403},
		"a real IP that a proxy names":    {open, []func(*http.Request){header("X-Real-Ip", "127.0.0.1")}, 403},
		"via a proxy":                     {open, []func(*http.Request){header("Via", "1.1 proxy")}, 403},
		"another machine":                 {open, []func(*http.Request){far}, 403},
		"through a proxy":                 {open, []func(*http.Request){header("X-Forwarded-For", "127.0.0.1")}, 403},
		"through another proxy":           {open, []func(*http.Request){header("Forwarded", "for=127.0.0.1")}, 403},
		"a name that leads here":          {open, []func(*http.Request){host("evil.example:8080")}, 403},
		"a certificate":                   {open, []func(*http.Request){far, verified}, 200},
		"TLS without a certificate":       {open, []func(*http.Request){far, func(r *http.Request) { r.TLS = &tls.ConnectionState{} }}, 403},
		"no token here":                   {token, nil, 401},
		"wrong token":                     {token, []func(*http.Request){header("Authorization", "Bearer other")}, 401},
		"empty token":                     {token, []func(*http.Request){header("Authorization", "Bearer ")}, 401},
		"bearer token":                    {token, []func(*http.Request){far, header("Authorization", "Bearer hush")}, 200},
		"basic token":                     {token, []func(*http.Request){far, func(r *http.Request) { r.SetBasicAuth("any", "hush") }}, 200},
		"certificate in place of a token": {token, []func(*http.Request){far, verified}, 200},
		"insecure":                        {insecure, []func(*http.Request){far, host("any.example")}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/", "/stats", "/page.js", "/page.css", "/icon.svg"} {
				answer := get(test.m, path, test.change...)
				require.Equal(t, test.code, answer.Code, path)
				require.Equal(t, test.code == 401, answer.Header().Get("WWW-Authenticate") != "")
				if test.code != 200 {
					require.Contains(t, answer.Body.String(), "monitor: ")
					require.NotContains(t, answer.Body.String(), "hush")
				}
			}
			require.Equal(t, http.StatusOK, get(test.m, "/livez", test.change...).Code, "probes come from elsewhere")
		})
	}
}

func TestHandler_ChangesNothing(t *testing.T) {
	m := newWorld(t, buffstreams.ManagerConfig{}).monitor(t, monitor.Config{})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		require.Equal(t, http.StatusMethodNotAllowed, get(m, "/stats", func(r *http.Request) { r.Method = method }).Code)
	}
	require.Equal(t, http.StatusNotFound, get(m, "/nothing").Code)
	for _, query := range []string{"?limit=0", "?limit=x", "?limit=-1"} {
		require.Equal(t, http.StatusBadRequest, get(m, "/stats"+query).Code)
	}
	page := get(m, "/")
	require.Contains(t, page.Header().Get("Content-Security-Policy"), "default-src 'none'")
	require.NotRegexp(t, `(?i)https?://`, strings.ReplaceAll(page.Body.String(), "http://www.w3.org", ""), "nothing from the network")
}

func TestStats_LimitKeepsTheWorst(t *testing.T) {
	w := newWorld(t, buffstreams.ManagerConfig{})
	m := w.monitor(t, monitor.Config{})
	base, _, _ := strings.Cut(w.topic, "/orders")
	for i := range 5 {
		_, err := w.sub.Subscribe(t.Context(), fmt.Sprintf("127.0.0.1:0/t%d", i))
		require.NoError(t, err)
	}
	require.NoError(t, w.publisher.Publish(base+"/t3", message.NewMessage("", nil)))
	var s monitor.Stats
	require.Eventually(t, func() bool {
		s = getStats(t, m, "?limit=1")
		return s.LeftOff["topics"] == 5 && s.Listeners[0].Topics[0].Topic == "t3"
	}, limit, 50*time.Millisecond)
	require.Equal(t, 5, s.LeftOff["subscriptions"])
	require.Len(t, getStats(t, m, "").Listeners[0].Topics, 6, "the others are still there")
}

// manyStored is an outbox with many destinations, of which one has many topics.
type manyStored struct{}

func (manyStored) Stats() store.OutboxStats {
	s := store.OutboxStats{Name: "/var/spool/many", Delivering: true}
	for i := range 10_000 {
		s.Destinations = append(s.Destinations, store.DestinationStats{Name: fmt.Sprintf("host-%d:1", i), Pending: uint64(i)})
	}
	worst := &s.Destinations[len(s.Destinations)-1]
	for i := range 10_000 {
		worst.Topics = append(worst.Topics, store.OutboxTopicStats{Name: fmt.Sprintf("t%d", i), Pending: 1})
	}
	return s
}

// Lists within rows count together, and what one does not need the next ones get.
func TestStats_LimitIsThatOfAllListeners(t *testing.T) {
	w := newWorld(t, buffstreams.ManagerConfig{})
	m := w.monitor(t, monitor.Config{})
	for i := range 3 * 20 {
		require.NoError(t, w.sub.SubscribeInitialize(fmt.Sprintf("127.0.0.%d:0/t%d", 2+i%3, i)))
	}
	for limit, want := range map[string]int{"?limit=40": 40, "?limit=8": 8, "": 61} {
		require.Eventually(t, func() bool {
			s, shown := getStats(t, m, limit), 0
			for _, l := range s.Listeners {
				shown += len(l.Topics)
			}
			return shown == want && s.LeftOff["topics"] == 61-want
		}, 20*time.Second, 50*time.Millisecond, limit)
	}
}

// What the page asks for stays small and quick, however much there is.
func TestStats_TenThousandTopics(t *testing.T) {
	topics := 10_000
	if testing.Short() || raced {
		topics = 500
	}
	w := newWorld(t, buffstreams.ManagerConfig{})
	m := w.monitor(t, monitor.Config{Outboxes: map[string]monitor.Outbox{"many": manyStored{}}})
	base, _, _ := strings.Cut(w.topic, "/orders")
	for i := range topics {
		require.NoError(t, w.sub.SubscribeInitialize(fmt.Sprintf("127.0.0.1:0/t%d", i)))
		require.NoError(t, w.publisher.Publish(fmt.Sprintf("%s/t%d", base, i), message.NewMessage("", nil)))
	}
	require.Eventually(t, func() bool {
		left := getStats(t, m, "?limit=100").LeftOff
		return left["topics"] == topics-99 && left["streams"] == topics-100
	}, limit, 10*time.Millisecond)
	require.Equal(t, 10_000-100, getStats(t, m, "?limit=100").LeftOff["destinations"])
	begin := time.Now()
	answer := get(m, "/stats?limit=100")
	t.Logf("the page's statistics took %v", time.Since(begin).Round(time.Millisecond))
	require.Less(t, time.Since(begin), limit, "a loose bound, as the machine may be busy: it is some 30 ms")
	require.Less(t, answer.Body.Len(), 200_000)
	require.Less(t, get(m, "/stats").Body.Len(), 20_000_000)
}

func TestConfig_Validate(t *testing.T) {
	for text, cfg := range map[string]monitor.Config{
		"nothing to show": {},
		"Managers[a]":     {Managers: map[string]*buffstreams.Manager{"a": nil}},
		"Publishers[a]":   {Publishers: map[string]*buffstreams.Publisher{"a": nil}},
		"Subscribers[a]":  {Subscribers: map[string]*buffstreams.Subscriber{"a": nil}},
		"Outboxes[a]":     {Outboxes: map[string]monitor.Outbox{"a": nil}},
	} {
		_, err := monitor.New(cfg)
		require.ErrorContains(t, err, text)
	}
}

func TestListenAndServe_RefusesWhatOthersCanReach(t *testing.T) {
	w := newWorld(t, buffstreams.ManagerConfig{})
	withTLS := &tls.Config{MinVersion: tls.VersionTLS13}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // so that one which is not refused ends
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.invalid:0"} {
		err := w.monitor(t, monitor.Config{}).ListenAndServe(ctx, address, nil, nil)
		var insecure *monitor.InsecureAddressError
		require.ErrorAs(t, err, &insecure)
		require.ErrorContains(t, err, "Config.Token")
		require.ErrorAs(t, w.monitor(t, monitor.Config{}).ListenAndServe(ctx, address, withTLS, nil), &insecure)
		err = w.monitor(t, monitor.Config{Token: "hush"}).ListenAndServe(ctx, address, nil, nil)
		require.ErrorAs(t, err, &insecure)
		require.True(t, insecure.Token)
		require.ErrorContains(t, err, "plaintext")
	}
}

func TestListenAndServe_EndsWithItsContext(t *testing.T) {
	w := newWorld(t, buffstreams.ManagerConfig{})
	m := w.monitor(t, monitor.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	at, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() { ended <- m.ListenAndServe(ctx, "127.0.0.1:0", nil, func(a net.Addr) { at <- a }) }() // ends with ctx
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	address := (<-at).String()
	slow, err := net.Dial("tcp", address) // it is accepted before the next one
	require.NoError(t, err)
	defer func() { _ = slow.Close() }()
	_, err = io.WriteString(slow, "GET /livez HTTP/1.1\r\n") // and never the rest
	require.NoError(t, err)
	answer, err := client.Get("http://" + address + "/livez")
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, "ok\n", string(body))
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, slow.SetReadDeadline(time.Now().Add(limit)))
	_, err = slow.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "a connection that does not end is ended")
}
