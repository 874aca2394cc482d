// Package postgres is the driver of PostgreSQL: postgres://user@host:5432/database. A topic is a table of messages and
// one of the groups' positions, in the format of watermill-sql with a bytea payload.
package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
	"github.com/buffstreams/watermill-buffstreams/engines/internal/parts"
)

const name = "postgres"

// Driver opens PostgreSQL.
func Driver() driver.Spec {
	return driver.Spec{
		Name: name, Schemes: []string{"postgres", "postgresql"},
		Parameters: driver.ServerParameters("a topic whose table is not there",
			driver.Parameter{Name: "poll", Help: "the most time between two looks for new messages; default 100ms"},
			driver.Parameter{Name: "sslmode", Help: "as PostgreSQL's: disable, require, verify-ca, verify-full ...; default prefer, with tls_ca verify-full"}),
		Cannot: map[string]string{
			"confirm=enqueued": "a table has what is committed",
			"confirm=handled":  "a table does not tell its publishers what was handled",
			"members":          "it keeps the order of keys with any number of members: one of them is active",
			"redeliver_after":  "the server notices a dead member by its connection",
		},
		NoHost: true, Cause: cause, OpenBroker: open,
	}
}

type broker struct {
	cfg    *driver.Config
	pool   *pgxpool.Pool
	create bool
	poll   time.Duration

	mu     sync.Mutex
	tables map[string]table // by topic; guarded by mu
}

// table is a topic: names that are quoted already.
type table struct{ messages, offsets, id string }

func open(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	p, u := &cfg.Params, cfg.URL
	b := &broker{cfg: cfg, create: p.Bool("create", true), poll: p.Duration("poll", 100*time.Millisecond), tables: map[string]table{}}
	target := url.URL{Scheme: "postgres", Host: strings.Join(cfg.Hosts, ","), Path: u.Path}
	query := url.Values{"application_name": {"watermill-buffstreams"}, "connect_timeout": {"5"}}
	if mode := p.String("sslmode", ""); mode != "" {
		query.Set("sslmode", mode)
	}
	if !p.Given("sslmode") && p.Given("tls_ca") {
		query.Set("sslmode", "verify-full") // else the certificate that tls_ca is for would not be looked at
	}
	for ours, theirs := range map[string]string{"tls_ca": "sslrootcert", "tls_cert": "sslcert", "tls_key": "sslkey"} {
		if file := p.String(ours, ""); file != "" {
			query.Set(theirs, file)
		}
	}
	target.RawQuery = query.Encode()
	user, password := cfg.Login()
	if err := p.Err(); err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(target.String())
	if err != nil {
		return nil, err
	}
	if user != "" {
		config.ConnConfig.User = user
	}
	if password != "" {
		config.ConnConfig.Password = password
	}
	config.MaxConns = 16
	if b.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	if err := b.Check(ctx); err != nil {
		b.pool.Close()
		return nil, err
	}
	return b, nil
}

// Check returns nil if the server answers.
func (b *broker) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := b.pool.Ping(ctx)
	if ours := (*pgconn.PgError)(nil); errors.As(err, &ours) {
		return ours // without the tries with and without TLS before it
	}
	return err
}

// cause is the cause of an error of PostgreSQL, by the class of its code.
func cause(err error) *driver.Cause {
	var ours *pgconn.PgError
	if !errors.As(err, &ours) {
		var connecting *pgconn.ConnectError
		if errors.As(err, &connecting) && driver.NetworkCause(err) == nil {
			return driver.ErrNoTLS // the client has no type for a server that refuses TLS
		}
		return nil
	}
	switch {
	case strings.HasPrefix(ours.Code, "28"):
		return driver.ErrCredentials
	case ours.Code == "42501":
		return driver.ErrDenied
	case ours.Code == "3D000":
		return driver.ErrNoDatabase
	case ours.Code == "53100", ours.Code == "53200":
		return driver.ErrFull
	case strings.HasPrefix(ours.Code, "57P"), ours.Code == "53300":
		return driver.ErrUnreachable
	case ours.Code == "25006":
		return driver.ErrUnavailable // it is a standby
	}
	return nil
}

// requestTimeout bounds one request beside those that publish.
const requestTimeout = 10 * time.Second

func (b *broker) Close() error {
	b.pool.Close()
	return nil
}

// longestName is how much of a topic fits into the names of its tables, which the server cuts at 63 bytes.
const longestName = 44

// tableName is the part of the names of tables that is a topic's.
func tableName(topic string) string {
	escaped := driver.Escape(topic, driver.Word)
	if len(escaped) > longestName {
		sum := sha256.Sum256([]byte(topic))
		escaped = escaped[:longestName-20] + "_h_" + hex.EncodeToString(sum[:8])
	}
	return escaped
}

// table finds the tables of a topic, and makes them where they are not there and create allows that.
func (b *broker) table(ctx context.Context, topic string) (table, error) {
	if topic == "" {
		return table{}, errors.New("engines: postgres: the topic is empty")
	}
	b.mu.Lock()
	t, known := b.tables[topic]
	b.mu.Unlock()
	if known {
		return t, nil
	}
	bare := "watermill_" + tableName(topic)
	t = table{messages: pgx.Identifier{bare}.Sanitize(), offsets: pgx.Identifier{"watermill_offsets_" + tableName(topic)}.Sanitize()}
	var oid *uint32
	if err := b.pool.QueryRow(ctx, "SELECT to_regclass($1)::oid", t.messages).Scan(&oid); err != nil {
		return t, err
	}
	if oid == nil {
		if !b.create {
			return t, fmt.Errorf("engines: postgres: table %s: %w", t.messages, driver.ErrNoTopic)
		}
		if err := b.make(ctx, t); err != nil {
			return t, fmt.Errorf("engines: postgres: make table %s: %w", t.messages, err)
		}
		if err := b.pool.QueryRow(ctx, "SELECT to_regclass($1)::oid", t.messages).Scan(&oid); err != nil {
			return t, err
		}
	}
	var system string
	if err := b.pool.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&system); err != nil {
		system = b.cfg.URL.Host // the user may not ask
	}
	t.id = fmt.Sprintf("postgres/%s/%d/", system, *oid)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tables[topic] = t
	return t, nil
}

// schemaLock is an advisory lock: two sessions that make a table at a time get in each other's way.
const schemaLock = 7162835

func (b *broker) make(ctx context.Context, t table) error {
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		for _, statement := range []string{
			fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", schemaLock),
			`CREATE TABLE IF NOT EXISTS ` + t.messages + ` ("offset" BIGSERIAL, "uuid" TEXT NOT NULL,
				"created_at" TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, "payload" BYTEA DEFAULT NULL, "metadata" JSON DEFAULT NULL,
				"transaction_id" xid8 NOT NULL, PRIMARY KEY ("transaction_id", "offset"))`,
			`CREATE TABLE IF NOT EXISTS ` + t.offsets + ` (consumer_group VARCHAR(255) NOT NULL, offset_acked BIGINT,
				last_processed_transaction_id xid8 NOT NULL, PRIMARY KEY(consumer_group))`,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// defaultBatch is how many messages one statement stores.
const defaultBatch = 1000

// Publish stores messages, in order, in statements of which each stores all or nothing.
func (b *broker) Publish(ctx context.Context, topic string, messages []*message.Message) error {
	t, err := b.table(ctx, topic)
	if err != nil {
		return err
	}
	limit := parts.Limit{Messages: cmp.Or(b.cfg.Batch, defaultBatch), Bytes: statementBytes}
	return parts.Publish(messages, limit, driver.Size, parts.Whole(func(part []*message.Message) error {
		return b.insert(ctx, topic, t, part)
	}))
}

// insert stores messages in one statement.
func (b *broker) insert(ctx context.Context, topic string, t table, messages []*message.Message) error {
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	uuids, payloads, metadata := columns(messages)
	// Rows of unnest, and so what is inserted, are in the order of the arrays; to sort them would copy each payload
	// once more.
	err = conn.Conn().PgConn().ExecParams(ctx, `INSERT INTO `+t.messages+` (uuid, payload, metadata, transaction_id)
		SELECT u, p, m::json, pg_current_xact_id() FROM (SELECT pg_advisory_xact_lock_shared(hashtextextended($4, 1))) AS inserting,
		unnest($1::text[], $2::bytea[], $3::text[]) AS x(u, p, m)`,
		[][]byte{uuids, payloads, metadata, []byte(t.messages)}, nil, []int16{pgx.BinaryFormatCode}, nil).Read().Err
	var ours *pgconn.PgError
	switch {
	case !errors.As(err, &ours):
	case refusals[ours.Code], strings.HasPrefix(ours.Code, "22"), strings.HasPrefix(ours.Code, "23"):
		return &driver.RefusedError{Engine: name, Topic: topic, Err: err}
	case ours.Code == undefinedTable:
		b.mu.Lock()
		delete(b.tables, topic) // the next call makes it again, or says that it is not there
		b.mu.Unlock()
	}
	return err
}

// refusals are the server's codes that are about a message, beside the classes 22, of data that it cannot store, and
// 23, of constraints: an exception that a trigger has raised, and limits of a program.
var refusals = map[string]bool{"P0001": true, "54000": true}

const undefinedTable = "42P01"

// Declare makes the tables, and the position of a group that begins with new messages.
func (b *broker) Declare(ctx context.Context, topic, group string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	t, err := b.table(ctx, topic)
	if err != nil || group == "" || b.cfg.Start == driver.StartAll {
		return err
	}
	_, err = b.pool.Exec(ctx, `INSERT INTO `+t.offsets+` (consumer_group, offset_acked, last_processed_transaction_id)
		SELECT $1, 0, pg_snapshot_xmax(pg_current_snapshot()) ON CONFLICT DO NOTHING`, group)
	return err
}

// Recent returns the IDs of the last n messages of a topic.
func (b *broker) Recent(ctx context.Context, topic string, n int) ([]string, error) {
	t, err := b.table(ctx, topic)
	if err != nil {
		return nil, err
	}
	var ids []string
	err = pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		// What a publisher that was killed has sent is stored still: this waits until it is.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", t.messages); err != nil {
			return err
		}
		// The server does not take apart metadata with a zero character.
		rows, err := tx.Query(ctx, `SELECT COALESCE(metadata::text, '') FROM `+t.messages+` ORDER BY transaction_id DESC, "offset" DESC LIMIT $1`, n)
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
			var encoded string
			var metadata map[string]string
			if err := r.Scan(&encoded); err != nil || encoded == "" {
				return "", err
			}
			_ = json.Unmarshal([]byte(encoded), &metadata) // what is no map of strings is not of here
			return metadata[driver.IDHeader], nil
		})
		return err
	})
	return ids, err
}
