package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/spf13/cobra"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/amqp"
	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
	"github.com/buffstreams/watermill-buffstreams/engines/kafka"
	"github.com/buffstreams/watermill-buffstreams/engines/nats"
	"github.com/buffstreams/watermill-buffstreams/engines/outboxes"
	"github.com/buffstreams/watermill-buffstreams/engines/postgres"
	"github.com/buffstreams/watermill-buffstreams/engines/redis"
)

const bridgeHelp = `Carry messages from one engine to another, until SIGTERM or an interrupt.

A message is acked at its source when the destination has confirmed it. Messages with the same --key keep their order; without
--key each topic keeps its order as a whole, which is slower. After a kill -9 the next bridge goes on where the last one was:
none is lost, and none is repeated where the destination knows IDs (JetStream) or can look back (JetStream, Kafka, Redis,
PostgreSQL); what the last one had sent to a destination that stood still is repeated by all but JetStream.

URLs:  tcp://host:port  tls://host:port  unix:///path  dns://name:port  srv://_service._proto.name
       nats://host,host  kafka://host,host  redis://host/0  amqp://host/vhost  postgres://host/database
with parameters as in docs/engines.md, such as ?group=NAME. Secrets come from files and the environment:
  nats://user@host:4222?password_file=/run/secrets/nats     kafka://user@host:9092?password_env=KAFKA_PASSWORD

A message that the destination refuses for good, or that is larger than --max-message-size, goes to --dead-letter at the
source; without that the command ends with 1, and the message stays at the source.

--listen ADDR serves /readyz (200 while both engines answer and the destination confirms, else 503 and why), /healthz, and
/progress (JSON). An end by a signal takes no new messages, delivers those in hand for up to --drain-timeout, and returns 0.

Exit codes: 0 ended by a signal; 1 failed, or messages in hand were not delivered.`

type bridgeFlags struct {
	config       bridge.Config
	topics       []string
	listen       string
	progress     time.Duration
	verbose      bool
	startTimeout time.Duration
}

func newBridge() *cobra.Command {
	var f bridgeFlags
	cmd := &cobra.Command{
		Use: "bridge --from URL --to URL --topic NAME[=NAME]...", Short: "Carry messages between two engines", Long: bridgeHelp,
		Example: `  buffstreams bridge --from tcp://127.0.0.1:5031 --to nats://n1,n2,n3?replicas=3 --topic orders --key customer
  buffstreams bridge --from nats://n1,n2,n3 --to kafka://k1,k2,k3 --topic orders=shop.orders --listen 127.0.0.1:8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), os.Stderr) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config.From, "from", "", "URL of the source")
	flags.StringVar(&f.config.To, "to", "", "URL of the destination")
	flags.StringArrayVar(&f.topics, "topic", nil, "topic to carry, as FROM or FROM=TO; can be given many times")
	flags.StringVar(&f.config.Key, "key", "", "metadata key of the order key")
	flags.IntVar(&f.config.MaxInFlight, "max-in-flight", bridge.DefaultMaxInFlight, "messages of a topic that may be in the bridge's hands")
	flags.IntVar(&f.config.Lanes, "lanes", bridge.DefaultLanes, "with --key: batches of a topic that may be on their way")
	flags.IntVar(&f.config.Batch, "batch", bridge.DefaultBatch, "messages that are published at a time")
	flags.IntVar(&f.config.MaxMessageSize, "max-message-size", 0, "limit of payload and metadata in bytes (default the destination's)")
	flags.IntVar(&f.config.LookBack, "look-back", 0, "messages of the destination to read at the start (default 4 times --max-in-flight; -1 none)")
	flags.StringVar(&f.config.DeadLetterTopic, "dead-letter", "", "topic of the source for messages that the destination refuses")
	flags.DurationVar(&f.config.DrainTimeout, "drain-timeout", bridge.DefaultDrainTimeout, "how long the end may take")
	flags.DurationVar(&f.startTimeout, "start-timeout", 30*time.Second, "how long opening both engines may take")
	flags.StringVar(&f.listen, "listen", "", "address to serve /readyz, /healthz and /progress at")
	flags.DurationVar(&f.progress, "progress", 10*time.Second, "time between lines of progress on standard error; 0 none")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log on standard error what happens to connections")
	return cmd
}

// bridgeDrivers are the engines that the command knows beside this library.
func bridgeDrivers() []engines.Driver {
	return []engines.Driver{nats.Driver, kafka.Driver, redis.Driver, amqp.Driver, postgres.Driver}
}

func (f *bridgeFlags) run(ctx context.Context, warn io.Writer) error {
	if f.config.From == "" || f.config.To == "" || len(f.topics) == 0 {
		return errors.New("--from, --to and --topic are needed; see --help")
	}
	for flag, url := range map[string]string{"--from": f.config.From, "--to": f.config.To} {
		if err := refuseSecret(flag, url); err != nil {
			return err
		}
	}
	for _, topic := range f.topics {
		from, to, _ := strings.Cut(topic, "=")
		f.config.Topics = append(f.config.Topics, bridge.Topic{From: from, To: cmp.Or(to, from)})
	}
	f.config.Options = engines.Options{Drivers: bridgeDrivers(), OpenOutbox: outboxes.Open}
	f.config.Logger = watermill.LoggerAdapter(watermill.NopLogger{})
	if f.verbose {
		f.config.Logger = pipe.NewLogger(warn, true)
	}
	var listener net.Listener
	if f.listen != "" {
		var err error
		if listener, err = net.Listen("tcp", f.listen); err != nil { //nolint:noctx // it does not wait
			return err
		}
		defer func() { _ = listener.Close() }()
	}
	opening, cancel := context.WithTimeout(ctx, f.startTimeout)
	defer cancel()
	b, err := bridge.Open(opening, f.config)
	if err != nil {
		return err
	}
	if listener != nil {
		server := &http.Server{Handler: bridgeHandler(b), ReadHeaderTimeout: 5 * time.Second}
		go func() { _ = server.Serve(listener) }() // ends with Close
		defer func() { _ = server.Close() }()
		_, _ = fmt.Fprintf(warn, "serving /readyz at http://%s\n", listener.Addr())
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // ends with stop
		defer close(stopped)
		f.report(b, warn, stop)
	}()
	err = b.Run(ctx)
	close(stop)
	<-stopped
	_, _ = fmt.Fprintln(warn, progressLine(b.Stats()))
	if exposed := (*buffstreams.InsecureAddressError)(nil); errors.As(err, &exposed) {
		return fmt.Errorf("--from: refusing to listen in plaintext at %s, which other machines can reach; "+
			"use a loopback address, tls:// with tls_cert and tls_key, or insecure=true", exposed.Address)
	}
	return err
}

// report prints the progress until stop is closed.
func (f *bridgeFlags) report(b *bridge.Bridge, warn io.Writer, stop <-chan struct{}) {
	if f.progress <= 0 {
		return
	}
	ticker := time.NewTicker(f.progress)
	defer ticker.Stop()
	last := b.Stats()
	for {
		select {
		case <-ticker.C:
			now := b.Stats()
			line := progressLine(now) + fmt.Sprintf(", %.0f/s", float64(now.Forwarded-last.Forwarded)/f.progress.Seconds())
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			if err := b.Ready(ctx); err != nil {
				line += ": not ready: " + oneLine(err)
			}
			cancel()
			_, _ = fmt.Fprintln(warn, line)
			last = now
		case <-stop:
			return
		}
	}
}

func progressLine(s bridge.Stats) string {
	return fmt.Sprintf("forwarded %d, in hand %d, refused %d, skipped %d", s.Forwarded, s.InHand, s.Refused, s.Skipped)
}

// bridgeHandler serves the state of a bridge.
func bridgeHandler(b *bridge.Bridge) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := b.Ready(ctx); err != nil {
			http.Error(w, oneLine(err), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	mux.HandleFunc("GET /progress", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(b.Stats())
	})
	return mux
}
