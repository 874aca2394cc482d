// Package redis is the driver of Redis Streams: redis://host:6379/0. A topic is a stream, in the format of
// watermill-redisstream; a group is a consumer group.
package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
	"github.com/buffstreams/watermill-buffstreams/engines/internal/parts"
)

const name = "redis"

// Driver opens Redis Streams.
func Driver() driver.Spec {
	return driver.Spec{
		Name: name, Schemes: []string{"redis", "rediss"},
		Parameters: driver.ServerParameters("a topic whose stream is not there",
			driver.Parameter{Name: "max_len", Help: "about how many messages a stream keeps, read or not; default all"}),
		Cannot: map[string]string{
			"confirm=enqueued": "a stream confirms what it has taken",
			"confirm=handled":  "a stream does not tell its publishers what was handled",
		},
		KeyNeedsOneMember: true,
		Cause:             cause,
		OpenBroker:        open,
	}
}

type broker struct {
	cfg    *driver.Config
	client *redis.Client
	create bool
	maxLen int64
	limit  int    // the most that the server takes as one value
	id     string // begins the IDs of messages

	mu    sync.Mutex
	known map[string]bool // topics that are there; guarded by mu
}

func open(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	p, u := &cfg.Params, cfg.URL
	b := &broker{
		cfg: cfg, create: p.Bool("create", true), maxLen: int64(p.Int("max_len", 0, 1, math.MaxInt32)), known: map[string]bool{},
		id: "redis/" + u.Host + u.Path + "/",
	}
	// Each request has the time of its context: what was given up can still be executed, when a server that stood still
	// goes on.
	options := &redis.Options{Addr: u.Host, MaxRetries: -1, ContextTimeoutEnabled: true, ReadTimeout: -1, PoolSize: 32, DisableIdentity: true}
	if !strings.Contains(u.Host, ":") {
		options.Addr += ":6379"
	}
	if len(cfg.Hosts) > 1 {
		return nil, &driver.UnsupportedError{Engine: name, Parameter: "several hosts", Why: "a stream is on one server"}
	}
	var err error
	if db := strings.Trim(u.Path, "/"); db != "" {
		if options.DB, err = strconv.Atoi(db); err != nil {
			return nil, fmt.Errorf("engines: redis: the path of the URL is a database's number, not %.100q", db)
		}
	}
	options.Username, options.Password = cfg.Login()
	if options.TLSConfig, err = p.ClientTLS(); err != nil {
		return nil, err
	}
	if u.Scheme == "rediss" && options.TLSConfig == nil {
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	b.client = redis.NewClient(options)
	if err := b.Check(ctx); err != nil {
		return nil, errors.Join(err, b.client.Close())
	}
	b.readLimit(ctx)
	return b, nil
}

// defaultLimit is the server's own.
const defaultLimit = 512 << 20

// readLimit asks the server for the most that it takes as one value: it ends the connection of a client that sends
// more.
func (b *broker) readLimit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	b.limit = defaultLimit
	const parameter = "proto-max-bulk-len"
	if config, err := b.client.ConfigGet(ctx, parameter).Result(); err == nil { // not every user may ask
		if limit, err := strconv.Atoi(config[parameter]); err == nil {
			b.limit = limit
		}
	}
}

// Check returns nil if the server answers.
func (b *broker) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return b.client.Ping(ctx).Err()
}

// cause is the cause of an error of Redis, whose first word is its code.
func cause(err error) *driver.Cause {
	var ours redis.Error
	if !errors.As(err, &ours) {
		return nil
	}
	switch code, _, _ := strings.Cut(ours.Error(), " "); code {
	case "WRONGPASS", "NOAUTH":
		return driver.ErrCredentials
	case "NOPERM":
		return driver.ErrDenied
	case "OOM", "MISCONF":
		return driver.ErrFull
	case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN":
		return driver.ErrUnreachable
	case "READONLY", "WRONGTYPE":
		return driver.ErrUnavailable
	}
	return nil
}

// requestTimeout bounds one request beside those that publish and fetch.
const requestTimeout = 5 * time.Second

func (b *broker) Close() error { return b.client.Close() }

// exists returns an error if a topic is not there and must not be made.
func (b *broker) exists(ctx context.Context, topic string) error {
	if b.create {
		return nil
	}
	b.mu.Lock()
	known := b.known[topic]
	b.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	n, err := b.client.Exists(ctx, topic).Result()
	if err == nil && n == 0 {
		err = fmt.Errorf("engines: redis: stream %.200q: %w", topic, driver.ErrNoTopic)
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[topic] = true
	return nil
}

// addTimeout bounds a request that publishes.
const addTimeout = time.Minute

// defaultBatch is how many messages one transaction adds, and transactionBytes about how much: the server keeps all of
// one until it executes it, and megabytes that it comes back to cost it more than several transactions do.
const (
	defaultBatch     = 1000
	transactionBytes = 512 << 10
)

// Publish adds messages, in order, in transactions of which all or nothing is added.
func (b *broker) Publish(ctx context.Context, topic string, messages []*message.Message) error {
	if err := b.exists(ctx, topic); err != nil {
		return err
	}
	limit := parts.Limit{Messages: cmp.Or(b.cfg.Batch, defaultBatch), Bytes: transactionBytes}
	return parts.Publish(messages, limit, driver.Size, parts.Whole(func(part []*message.Message) error {
		return b.add(ctx, topic, part)
	}))
}

// add adds messages in one transaction, in the format of watermill-redisstream. Its commands share memory.
func (b *broker) add(ctx context.Context, topic string, messages []*message.Message) error {
	ctx, cancel := context.WithTimeout(ctx, addTimeout)
	defer cancel()
	if size := driver.Size(messages[0]); size > b.limit { // a part of its own: no server has a limit below transactionBytes
		err := fmt.Errorf("%w: %d bytes, the server's proto-max-bulk-len is %d", driver.ErrTooLarge, size, b.limit)
		return &driver.RefusedError{Engine: name, Topic: topic, Err: err}
	}
	pipe := b.client.TxPipeline()
	if len(messages) == 1 {
		pipe = b.client.Pipeline()
	}
	args, ids := make([]any, 0, 13*len(messages)), make([]string, len(messages))
	for i, msg := range messages {
		if msg.Metadata.Get(redisstream.UUIDHeaderKey) != "" {
			err := fmt.Errorf("the metadata key %s is the format's own", redisstream.UUIDHeaderKey)
			return &driver.RefusedError{Engine: name, Topic: topic, Err: err}
		}
		first := len(args)
		args = append(args, "xadd", &topic) // a pointer costs no memory of its own
		if b.maxLen > 0 {
			args = append(args, "maxlen", "~", b.maxLen)
		}
		args = append(args, "*", redisstream.UUIDHeaderKey, &msg.UUID, "metadata", encodeMetadata(msg.Metadata), "payload", []byte(msg.Payload))
		if ids[i] = driver.ID(msg); ids[i] != "" {
			args = append(args, driver.IDHeader, &ids[i])
		}
		_ = pipe.Process(ctx, redis.NewStringCmd(ctx, args[first:len(args):len(args)]...)) // its error is that of Exec
	}
	_, err := pipe.Exec(ctx)
	return b.whyAborted(ctx, topic, err)
}

// whyAborted returns why the server has not executed a transaction, which it says of its commands, and the client does
// not: what it says of one that can add nothing, as no entry has that ID.
func (b *broker) whyAborted(ctx context.Context, topic string, err error) error {
	if !redis.HasErrorPrefix(err, "EXECABORT") {
		return err
	}
	why := b.client.Do(ctx, "XADD", topic, "NOMKSTREAM", "0-0", "a", "b").Err()
	if cause(why) == nil {
		return err
	}
	return why
}

// encodeMetadata returns metadata as a map of MessagePack, or nothing where there is none, as watermill-redisstream has
// it.
func encodeMetadata(metadata message.Metadata) []byte {
	if len(metadata) == 0 {
		return nil
	}
	size := 5
	for k, v := range metadata {
		size += 10 + len(k) + len(v)
	}
	dst := appendLength(make([]byte, 0, size), len(metadata), 0x80, 15, 0xde)
	for k, v := range metadata {
		dst = append(appendLength(dst, len(k), 0xa0, 31, 0xda), k...)
		dst = append(appendLength(dst, len(v), 0xa0, 31, 0xda), v...)
	}
	return dst
}

// appendLength appends the head of a map or a string of MessagePack: in one byte with small up to most, else as wide,
// which is followed by 16 bits, or the type behind it, by 32.
func appendLength(dst []byte, n int, small byte, most int, wide byte) []byte {
	switch {
	case n <= most:
		return append(dst, small|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, wide), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, wide+1), uint32(n))
}

// Declare makes the stream and the group.
func (b *broker) Declare(ctx context.Context, topic, group string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := b.exists(ctx, topic); err != nil || group == "" {
		return err
	}
	start := "0"
	if b.cfg.Start == driver.StartNew {
		start = "$"
	}
	err := b.client.XGroupCreateMkStream(ctx, topic, group, start).Err()
	if err != nil && strings.HasPrefix(err.Error(), "BUSYGROUP") { // it is there: the server has no other sign
		return nil
	}
	return err
}

// Recent returns the IDs of the last n messages of a topic.
func (b *broker) Recent(ctx context.Context, topic string, n int) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, addTimeout)
	defer cancel()
	if err := b.exists(ctx, topic); err != nil {
		return nil, err
	}
	entries, err := b.client.XRevRangeN(ctx, topic, "+", "-", int64(n)).Result()
	var ids []string
	for _, e := range entries {
		if id, ok := e.Values[driver.IDHeader].(string); ok {
			ids = append(ids, id)
		}
	}
	return ids, err
}
