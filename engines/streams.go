package engines

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

const streamsName = "buffstreams"

// streamsDriver opens this library.
func streamsDriver() driver.Spec {
	return driver.Spec{
		Name: streamsName, Schemes: []string{"tcp", "tls", "unix", "dns", "dns+tls", "srv", "srv+tls"},
		Parameters: append([]driver.Parameter{
			{Name: "listen", Help: "address at which subscriptions listen: host:port, tls://host:port or unix:///path; default the URL's"},
			{Name: "route.", Help: "route.TOPIC=ADDRESS,...: where messages of a topic go, if not to the URL's address"},
			{Name: "policy", Help: "which address of a route a message goes to: failover (default), roundrobin, leastpending, hash (by key) or all"},
			{Name: "outbox", Help: "directory of an outbox: Publish returns when a message is on disk; confirm cannot be set"},
			{Name: "window", Help: "messages per topic that each end keeps; default 16384"},
			{Name: "tls_ca", Help: "file of the certificates by which the other side is verified; a listener with one demands a certificate"},
			{Name: "tls_cert", Help: "file of this side's certificate"},
			{Name: "tls_key", Help: "file of its key"},
			{Name: "insecure", Help: "true permits plaintext beyond loopback"},
		}, driver.SecretParameters("token", "token to show to the peer")...),
		Cannot: map[string]string{
			"start":           "it keeps nothing for groups that come later; declare groups by subscribing before",
			"batch":           "it batches what has gathered by itself",
			"redeliver_after": "publishers notice a dead member by its connection",
			"members":         "it keeps the order of keys with any number of members",
		},
		OpenPubSub: func(_ context.Context, cfg *driver.Config) (driver.PubSub, error) { return openStreams(cfg) },
	}
}

// streams is the PubSub of this library. Its publisher and subscribers are the library's own.
type streams struct {
	manager    *buffstreams.Manager
	publisher  *buffstreams.Publisher
	subscriber buffstreams.SubscriberConfig
	cfg        *driver.Config
	closeStore func() error
	shows      bool // a certificate, where it listens

	mu     sync.Mutex
	subs   map[string]*buffstreams.Subscriber // by group; guarded by mu
	closed bool                               // guarded by mu
	done   chan struct{}
	err    error // of Close, once done is closed
}

func openStreams(cfg *driver.Config) (driver.PubSub, error) {
	if cfg.URL.User != nil {
		return nil, &driver.UnsupportedError{Engine: streamsName, Parameter: "user@", Why: "peers show tokens (token_file, token_env) or certificates (tls_cert)"}
	}
	manager, err := streamsManager(cfg)
	if err != nil {
		return nil, err
	}
	pub, listen, err := streamsPublisher(cfg)
	if err != nil {
		return nil, err
	}
	var box store.Outbox
	closeStore := func() error { return nil }
	if dir := cfg.Params.String("outbox", ""); dir != "" {
		switch {
		case cfg.Params.Given("confirm"):
			return nil, &driver.UnsupportedError{Engine: streamsName, Parameter: "confirm", Why: "an outbox confirms when a message is on disk"}
		case cfg.OpenOutbox == nil:
			return nil, &driver.UnsupportedError{Engine: streamsName, Parameter: "outbox", Why: "the program has none: set Options.OpenOutbox to outboxes.Open"}
		}
		if box, closeStore, err = cfg.OpenOutbox(dir); err != nil {
			return nil, fmt.Errorf("engines: open the outbox: %w", err)
		}
	}
	s := &streams{cfg: cfg, closeStore: closeStore, subs: map[string]*buffstreams.Subscriber{}, done: make(chan struct{})}
	if s.manager, err = buffstreams.NewManager(manager); err != nil {
		return nil, errors.Join(err, closeStore())
	}
	pub.Manager, pub.Outbox = s.manager, box
	if s.publisher, err = buffstreams.NewPublisher(pub, cfg.Logger); err != nil {
		return nil, errors.Join(err, s.manager.Close(), closeStore())
	}
	s.subscriber = streamsSubscriber(cfg, s.publisher)
	s.subscriber.Manager, s.subscriber.ListenAddress, s.shows = s.manager, listen, manager.Acked.ServerTLS != nil
	if err := s.subscriber.Validate(); err != nil {
		return nil, errors.Join(err, s.publisher.Close(), s.manager.Close(), closeStore())
	}
	return s, nil
}

// streamsManager reads what belongs to connections.
func streamsManager(cfg *driver.Config) (buffstreams.ManagerConfig, error) {
	p := &cfg.Params
	mc := buffstreams.ManagerConfig{Logger: cfg.Logger, CloseTimeout: cfg.CloseTimeout}
	mc.Acked.Insecure = p.Bool("insecure", false)
	mc.Acked.WindowMessages = p.Int("window", 0, 1, 1<<24)
	mc.Acked.MaxMessageSize = cfg.MaxMessageSize
	if mc.Acked.MaxMessageSize > 8<<20 {
		mc.Acked.WindowBytes = 2 * mc.Acked.MaxMessageSize
		mc.Acked.MemoryLimit = max(256<<20, 16*mc.Acked.MaxMessageSize)
	}
	if token := p.Secret("token", ""); token != "" {
		mc.Acked.Token = buffstreams.StaticToken(token)
	}
	files := buffstreams.TLSFiles{Certificate: p.String("tls_cert", ""), Key: p.String("tls_key", ""), CA: p.String("tls_ca", "")}
	if err := p.Err(); err != nil {
		return mc, err
	}
	if files.Certificate+files.Key+files.CA == "" {
		return mc, nil
	}
	var err error
	if mc.Acked.ClientTLS, err = files.Client(); err != nil {
		return mc, err
	}
	if files.Certificate != "" {
		mc.Acked.ServerTLS, err = files.Server()
	}
	return mc, err
}

// streamsPublisher reads where messages go, and returns where subscriptions listen too.
func streamsPublisher(cfg *driver.Config) (pc buffstreams.PublisherConfig, listen string, err error) {
	p, u := &cfg.Params, cfg.URL
	pc = buffstreams.PublisherConfig{
		PublishTimeout: cfg.PublishTimeout, CloseTimeout: cfg.CloseTimeout, MaxMessageSize: cfg.MaxMessageSize,
		Confirm: map[driver.Confirm]buffstreams.Confirm{
			driver.ConfirmReceived: buffstreams.ConfirmReceived, driver.ConfirmEnqueued: buffstreams.ConfirmEnqueued,
			driver.ConfirmHandled: buffstreams.ConfirmHandled,
		}[cfg.Confirm],
	}
	policy := map[string]route.Policy{
		"failover": route.Failover, "roundrobin": route.RoundRobin, "leastpending": route.LeastPending, "hash": route.Hash, "all": route.All,
	}[p.OneOf("policy", "failover", "roundrobin", "leastpending", "hash", "all")]
	rest := route.Route{Policy: policy}
	if policy == route.Hash {
		rest.HashKey = cfg.Key
	}
	if policy == route.Hash && cfg.Key == "" {
		p.Fail("policy", "hash needs key, the metadata key of the order key")
	}
	routes := route.Static{}
	for _, name := range p.Names("route.") {
		topic := strings.TrimPrefix(name, "route.")
		r := rest
		r.Addresses = strings.Split(p.String(name, ""), ",")
		routes[topic] = r
	}
	var main route.Resolver
	switch address := u.Host; u.Scheme {
	case "unix":
		address = "unix://" + u.Path
		listen, main = address, fixed(address, rest)
	case "tcp", "tls":
		if u.Port() == "" || u.Path != "" && u.Path != "/" {
			return pc, "", fmt.Errorf("engines: buffstreams: %s://%.200s%.200s is not %s://host:port", u.Scheme, u.Host, u.Path, u.Scheme)
		}
		if u.Scheme == "tls" {
			address = "tls://" + address
		}
		listen, main = address, fixed(address, rest)
	case "dns", "dns+tls":
		if u.Port() == "" {
			return pc, "", fmt.Errorf("engines: buffstreams: %s://%.200s has no port", u.Scheme, u.Host)
		}
		if u.Scheme == "dns+tls" {
			address = "tls://" + address
		}
		main = &route.DNS{Address: address, Route: rest}
	case "srv", "srv+tls":
		if main, err = srvResolver(u.Host, u.Scheme == "srv+tls", rest); err != nil {
			return pc, "", err
		}
	}
	listen = cmp.Or(p.String("listen", ""), listen)
	pc.Resolver = route.Func(func(ctx context.Context, topic string) (route.Route, error) {
		if r, ok := routes[topic]; ok {
			return r, nil
		}
		return main.Resolve(ctx, topic)
	})
	if _, isStatic := main.(route.Static); isStatic { // which is asked once for each topic
		routes["*"] = main.(route.Static)["*"] //nolint:forcetypeassert // as above
		pc.Resolver = routes
	}
	return pc, listen, p.Err()
}

func fixed(address string, r route.Route) route.Resolver {
	r.Addresses = []string{address}
	return route.Static{"*": r}
}

// srvResolver finds the addresses of a name such as _orders._tcp.example.com.
func srvResolver(name string, tls bool, rest route.Route) (route.Resolver, error) {
	parts := strings.SplitN(name, ".", 3)
	if len(parts) != 3 || !strings.HasPrefix(parts[0], "_") || !strings.HasPrefix(parts[1], "_") {
		return nil, fmt.Errorf("engines: buffstreams: srv://%.200s is not srv://_service._proto.name", name)
	}
	return &route.SRV{Service: parts[0][1:], Proto: parts[1][1:], Name: parts[2], TLS: tls, Route: rest}, nil
}

// streamsSubscriber is how subscriptions are, but for Manager, group and address.
func streamsSubscriber(cfg *driver.Config, pub message.Publisher) buffstreams.SubscriberConfig {
	sc := buffstreams.SubscriberConfig{
		MaxInFlight: cfg.MaxInFlight, NackResendSleep: cfg.NackDelay, NackResendCap: cfg.NackDelayMax,
		CloseTimeout: cfg.CloseTimeout, MaxAttempts: cfg.Attempts,
	}
	if cfg.NackDelay == 0 {
		sc.NackResendSleep = buffstreams.NoSleep
	}
	if cfg.CloseTimeout == 0 {
		sc.CloseTimeout = 1 // nanosecond: 0 means the default there
	}
	if cfg.DeadLetter != "" {
		sc.DeadLetter, sc.DeadLetterTopic = pub, cfg.DeadLetter
	}
	if cfg.Key != "" {
		key := cfg.Key
		sc.Key = func(msg *message.Message) string { return msg.Metadata.Get(key) }
	}
	return sc
}

func (s *streams) Publisher() message.Publisher { return s.publisher }

func (s *streams) Subscriber(group string) (message.Subscriber, error) {
	group = cmp.Or(group, s.cfg.Group)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if sub := s.subs[group]; sub != nil {
		return sub, nil
	}
	if s.subscriber.ListenAddress == "" {
		return nil, &driver.UnsupportedError{
			Engine: streamsName, Parameter: "Subscriber", Why: "a " + s.cfg.URL.Scheme + " URL names what is dialed; add listen=ADDRESS",
		}
	}
	if strings.HasPrefix(s.subscriber.ListenAddress, "tls://") && !s.shows {
		return nil, &driver.UnsupportedError{
			Engine: streamsName, Parameter: "Subscriber", Why: "it listens at " + s.subscriber.ListenAddress + ", and has no certificate; add tls_cert and tls_key",
		}
	}
	config := s.subscriber
	config.ConsumerGroup = group
	sub, err := buffstreams.NewSubscriber(config, s.cfg.Logger)
	if err == nil {
		s.subs[group] = sub
	}
	return sub, err
}

// Check returns nil while it is open: which peers are reachable is a question of each topic.
func (s *streams) Check(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return nil
}

// Close closes the subscribers side by side, then the publisher, which their handlers may use, and the Manager.
func (s *streams) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return s.err
	}
	s.closed = true
	s.mu.Unlock()
	var mu sync.Mutex
	var closing sync.WaitGroup
	for _, sub := range s.subs {
		closing.Go(func() {
			err := sub.Close()
			mu.Lock()
			defer mu.Unlock()
			s.err = errors.Join(s.err, err)
		})
	}
	closing.Wait()
	published := s.publisher.Close()
	if errors.Is(published, buffstreams.ErrUndelivered) { // the Manager has these messages, and says at its end what is left of them
		published = nil
	}
	s.err = errors.Join(s.err, published, s.manager.Close(), s.closeStore())
	close(s.done)
	return s.err
}
