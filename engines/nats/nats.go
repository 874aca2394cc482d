// Package nats is the driver of NATS JetStream: nats://host:4222,host:4222. A topic is a stream, a group a durable
// consumer of it.
package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

const name = "nats"

// Driver opens NATS JetStream.
func Driver() driver.Spec {
	parameters := driver.ServerParameters("a topic whose stream is not there",
		driver.Parameter{Name: "replicas", Help: "of streams that are made: 1 (default) to 5"},
		driver.Parameter{Name: "storage", Help: "of streams that are made: file (default) or memory"},
		driver.Parameter{Name: "max_age", Help: "how long streams that are made keep messages; default for ever"},
		driver.Parameter{Name: "max_bytes", Help: "how much streams that are made hold; a full one refuses messages; default without limit"},
		driver.Parameter{Name: "dedupe_window", Help: "how long streams that are made remember IDs; default 2m"},
		driver.Parameter{Name: "creds", Help: "credentials file of a user"})
	return driver.Spec{
		Name: name, Schemes: []string{"nats", "nats+tls"}, Parameters: append(parameters, driver.SecretParameters("token", "token")...),
		Cannot: map[string]string{
			"confirm=enqueued": "a stream confirms what it has stored",
			"confirm=handled":  "a stream does not tell its publishers what was handled",
		},
		KeyNeedsOneMember: true,
		Cause:             cause,
		OpenBroker:        open,
	}
}

// broker is a connection and what is known of the streams.
type broker struct {
	cfg    *driver.Config
	nc     *nats.Conn
	js     jetstream.JetStream
	wanted streamConfig // of streams that are made
	create bool
	logger watermill.LoggerAdapter

	mu      sync.Mutex
	streams map[string]*stream // by topic; guarded by mu, as what follows
	asking  map[*request]struct{}
}

func open(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	p := &cfg.Params
	b := &broker{cfg: cfg, streams: map[string]*stream{}, asking: map[*request]struct{}{}, create: p.Bool("create", true), logger: cfg.Logger}
	b.wanted = streamConfig{
		Retention: "limits", Discard: "new", Storage: p.OneOf("storage", "file", "memory"), Replicas: p.Int("replicas", 1, 1, 5),
		MaxAge: p.Duration("max_age", 0), MaxBytes: int64(p.Int("max_bytes", -1, 1, 1<<62)), MaxMsgs: -1,
		Duplicates: p.Duration("dedupe_window", 2*time.Minute), AllowAtomic: true,
	}
	options, err := b.options()
	if err != nil {
		return nil, err
	}
	if cfg.URL.Path != "" && cfg.URL.Path != "/" {
		return nil, fmt.Errorf("engines: nats: the URL has a path, %.100q: topics are given to Publish and Subscribe", cfg.URL.Path)
	}
	servers := make([]string, len(cfg.Hosts))
	for i, host := range cfg.Hosts {
		servers[i] = "nats://" + host
	}
	if b.nc, err = nats.Connect(strings.Join(servers, ","), options...); err != nil {
		return nil, err
	}
	if b.js, err = jetstream.New(b.nc); err == nil {
		err = b.Check(ctx)
	}
	if err != nil {
		b.nc.Close()
		return nil, err
	}
	return b, nil
}

// options are those of the connection: it comes back for ever, and what is published meanwhile fails at once.
func (b *broker) options() ([]nats.Option, error) {
	p, u := &b.cfg.Params, b.cfg.URL
	options := []nats.Option{
		nats.Name("watermill-buffstreams"), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, time.Second), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.IgnoreAuthErrorAbort(), // a server that refuses the credentials for a while does not end the connection for good
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.logger.Error("The connection to NATS is lost; connecting again", err, nil)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !b.denied(err) {
				b.logger.Error("NATS reports an error", err, nil)
			}
		}),
	}
	user, password := b.cfg.Login()
	urlToken := ""
	if _, given := u.User.Password(); !given && len(p.Names("password_")) == 0 {
		user, urlToken = "", user // as NATS' own URLs have tokens
	}
	if user != "" {
		options = append(options, nats.UserInfo(user, password))
	}
	if token := p.Secret("token", urlToken); token != "" {
		options = append(options, nats.Token(token))
	}
	if creds := p.String("creds", ""); creds != "" {
		options = append(options, nats.UserCredentials(creds))
	}
	secure, err := p.ClientTLS()
	if err != nil {
		return nil, err
	}
	if u.Scheme == "nats+tls" || secure != nil {
		options = append(options, nats.Secure(secure))
	}
	return options, p.Err()
}

// Check returns nil if JetStream answers.
func (b *broker) Check(ctx context.Context) error {
	if !b.nc.IsConnected() {
		return fmt.Errorf("engines: nats: not connected: %w", errors.Join(nats.ErrDisconnected, b.nc.LastError()))
	}
	ctx, done := b.asks(ctx, "$JS.API.INFO")
	defer done()
	if _, err := b.js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("engines: nats: JetStream does not answer: %w", causeOf(ctx, err))
	}
	return nil
}

func (b *broker) Close() error {
	b.nc.Close()
	return nil
}
