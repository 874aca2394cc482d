// Package kafka is the driver of Kafka: kafka://host:9092,host:9092. A topic is a topic, a group a consumer group; the
// order key is the records' key.
package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

const name = "kafka"

// Driver opens Kafka.
func Driver() driver.Spec {
	return driver.Spec{
		Name: name, Schemes: []string{"kafka", "kafka+tls"},
		Parameters: driver.ServerParameters("a topic that is not there",
			driver.Parameter{Name: "partitions", Help: "of topics that are made; default the broker's"},
			driver.Parameter{Name: "replicas", Help: "of topics that are made; default the broker's"},
			driver.Parameter{Name: "min_insync_replicas", Help: "of topics that are made; default the broker's"},
			driver.Parameter{Name: "retention", Help: "how long topics that are made keep messages; default the broker's"},
			driver.Parameter{Name: "sasl", Help: "how the URL's user logs in: plain (default), scram-sha-256 or scram-sha-512"}),
		Cannot: map[string]string{
			"confirm=enqueued": "it confirms what all replicas in sync have",
			"confirm=handled":  "a topic does not tell its publishers what was handled",
			"members":          "it keeps the order of keys with any number of members",
		},
		Cause: cause, OpenBroker: open,
	}
}

// broker is a producing client, and what is known of the topics.
type broker struct {
	cfg        *driver.Config
	options    []kgo.Opt // of every client
	client     *kgo.Client
	admin      *kadm.Client
	login      bool // there is a user
	create     bool
	partitions int
	replicas   int
	configs    map[string]*string

	mu        sync.Mutex
	topics    map[string]topic // guarded by mu, as what follows
	limits    map[string]int32 // max.message.bytes of topics, where the broker tells
	connected error            // why the last connection that was tried since Check began has failed
}

// OnBrokerConnect notes why a connection has failed: the client tries others, and at the end has only that time is over.
// That of one which was waited for to the end says less than what came before.
func (b *broker) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connected == nil || !errors.Is(err, context.DeadlineExceeded) {
		b.connected = err
	}
}

// topic is a topic as it was found or made.
type topic struct {
	name string
	id   string // stays the same for its life
}

func open(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	p := &cfg.Params
	b := &broker{
		cfg: cfg, topics: map[string]topic{}, limits: map[string]int32{}, configs: map[string]*string{}, create: p.Bool("create", true),
		partitions: p.Int("partitions", -1, 1, 10000), replicas: p.Int("replicas", -1, 1, 100),
	}
	if n := p.Int("min_insync_replicas", 0, 1, 100); n > 0 {
		b.configs["min.insync.replicas"] = kadm.StringPtr(strconv.Itoa(n))
	}
	if d := p.Duration("retention", 0); d > 0 {
		b.configs["retention.ms"] = kadm.StringPtr(strconv.FormatInt(d.Milliseconds(), 10))
	}
	if cfg.MaxMessageSize > 0 {
		b.configs["max.message.bytes"] = kadm.StringPtr(strconv.Itoa(cfg.MaxMessageSize + recordOverhead))
	}
	if cfg.URL.Path != "" && cfg.URL.Path != "/" {
		return nil, fmt.Errorf("engines: kafka: the URL has a path, %.100q: topics are given to Publish and Subscribe", cfg.URL.Path)
	}
	secure, err := p.ClientTLS()
	if err != nil {
		return nil, err
	}
	if secure == nil && cfg.URL.Scheme == "kafka+tls" {
		secure = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	b.options = []kgo.Opt{
		kgo.SeedBrokers(cfg.Hosts...), kgo.ClientID("watermill-buffstreams"), kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.DialTimeout(5 * time.Second), kgo.WithHooks(b),
	}
	if secure != nil {
		b.options = append(b.options, kgo.DialTLSConfig(secure))
	}
	login, err := b.mechanism()
	if err != nil {
		return nil, err
	}
	if login != nil {
		b.login = true
		b.options = append(b.options, kgo.SASL(login))
	}
	if b.client, err = kgo.NewClient(append(b.options, b.producing()...)...); err != nil {
		return nil, err
	}
	b.admin = kadm.NewClient(b.client)
	if err := b.Check(ctx); err != nil {
		b.client.Close()
		return nil, err
	}
	return b, nil
}

// recordOverhead is what a batch of one record needs beside the message.
const recordOverhead = 4096

// producing are the options of the client that publishes: it has a producer id, so that its own retries duplicate
// nothing, and goes on trying until the call that publishes gives up.
func (b *broker) producing() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(1 << 16), kgo.UnknownTopicRetries(10),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(b.limit),
	}
}

// limit is the most that a batch of a topic may have: a broker refuses a larger one as a whole, so that messages which
// it could take would be refused with those that it cannot.
func (b *broker) limit(topic string) int32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit := b.limits[topic]; limit > 0 {
		return limit
	}
	return int32(max(b.cfg.MaxMessageSize+recordOverhead, 1<<20))
}

// readLimit asks a broker for the limit of a topic. One that does not tell has the default.
func (b *broker) readLimit(ctx context.Context, topic string) {
	configs, err := b.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return
	}
	for _, config := range configs {
		for _, c := range config.Configs {
			if limit, err := strconv.ParseInt(c.MaybeValue(), 10, 32); c.Key == "max.message.bytes" && err == nil && limit >= 512 && limit <= 1<<30 {
				b.mu.Lock()
				b.limits[topic] = int32(limit)
				b.mu.Unlock()
			}
		}
	}
}

// mechanism is how the URL's user logs in, or nil.
func (b *broker) mechanism() (sasl.Mechanism, error) {
	p := &b.cfg.Params
	mechanism := p.OneOf("sasl", "plain", "scram-sha-256", "scram-sha-512")
	user, password := b.cfg.Login()
	if err := p.Err(); err != nil || user == "" {
		return nil, err
	}
	switch mechanism {
	case "scram-sha-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	}
	return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
}

// Check returns nil if a broker answers.
func (b *broker) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	b.mu.Lock()
	b.connected = nil
	b.mu.Unlock()
	answered := make(chan error, 1)
	go func() { answered <- b.client.Ping(ctx) }() // ends with ctx, or soon after: a dial has a bound of its own
	var err error
	select {
	case err = <-answered:
	case <-ctx.Done():
		err = ctx.Err()
	}
	switch {
	case errors.Is(err, io.EOF) && b.login && !errors.As(err, new(*kgo.ErrFirstReadEOF)):
		return fmt.Errorf("%w: the broker ended the connection at the login", kerr.SaslAuthenticationFailed)
	case errors.Is(err, context.DeadlineExceeded):
		b.mu.Lock()
		defer b.mu.Unlock()
		return cmp.Or(b.connected, err)
	}
	return err
}

// cause is the cause of an error of Kafka.
func cause(err error) *driver.Cause {
	for cause, errs := range map[*driver.Cause][]error{
		driver.ErrCredentials: {kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState},
		driver.ErrDenied: {
			kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
		},
		driver.ErrFull:        {kerr.KafkaStorageError, kerr.ThrottlingQuotaExceeded},
		driver.ErrUnreachable: {kerr.NotEnoughReplicas, kerr.LeaderNotAvailable, kerr.CoordinatorNotAvailable},
	} {
		if slices.ContainsFunc(errs, func(of error) bool { return errors.Is(err, of) }) {
			return cause
		}
	}
	return nil
}

// requestTimeout bounds one request beside those that publish and fetch.
const requestTimeout = 10 * time.Second

func (b *broker) Close() error {
	b.client.Close()
	return nil
}

// legal are the bytes of topic names.
func legal(c byte) bool { return driver.Word(c) || c == '.' }

// topic finds a topic, and makes it where there is none and create allows that.
func (b *broker) topic(ctx context.Context, asked string) (topic, error) {
	if asked == "" {
		return topic{}, errors.New("engines: kafka: the topic is empty")
	}
	b.mu.Lock()
	t, ok := b.topics[asked]
	b.mu.Unlock()
	if ok {
		return t, nil
	}
	t.name = driver.Escape(asked, legal)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	found, err := b.find(ctx, t.name)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		if !b.create {
			return t, fmt.Errorf("engines: kafka: topic %s: %w", t.name, driver.ErrNoTopic)
		}
		_, err = b.admin.CreateTopic(ctx, int32(b.partitions), int16(b.replicas), b.configs, t.name)
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			found, err = b.find(ctx, t.name)
			for errors.Is(err, kerr.UnknownTopicOrPartition) && ctx.Err() == nil { // the brokers tell each other
				time.Sleep(50 * time.Millisecond)
				found, err = b.find(ctx, t.name)
			}
		}
	}
	if err != nil {
		return t, fmt.Errorf("engines: kafka: topic %s: %w", t.name, err)
	}
	b.readLimit(ctx, t.name)
	t.id = "kafka/" + found.ID.String() + "/"
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topics[asked] = t
	return t, nil
}

func (b *broker) find(ctx context.Context, topic string) (kadm.TopicDetail, error) {
	topics, err := b.admin.ListTopics(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, err
	}
	return topics[topic], topics[topic].Err
}

// Declare makes the topic, and where a new group begins with new messages its offsets.
func (b *broker) Declare(ctx context.Context, asked, group string) error {
	t, err := b.topic(ctx, asked)
	if err != nil || group == "" || b.cfg.Start == driver.StartAll {
		return err
	}
	return b.beginAtEnd(ctx, t.name, group)
}

// beginAtEnd commits the ends of the partitions that a group has no offsets of.
func (b *broker) beginAtEnd(ctx context.Context, topic, group string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	known, err := b.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return err
	}
	wanted := ends.Offsets()
	for t, partitions := range known.Offsets() {
		for p, o := range partitions {
			if o.At >= 0 {
				wanted.Delete(t, p)
			}
		}
	}
	if len(wanted[topic]) == 0 {
		return nil
	}
	return b.admin.CommitAllOffsets(ctx, group, wanted)
}
