package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// position is a place in a topic: messages are in the order of their transactions, and of their offsets within one.
type position struct {
	transaction uint64
	offset      int64
}

func (p position) before(q position) bool {
	return p.transaction < q.transaction || p.transaction == q.transaction && p.offset < q.offset
}

// source is a subscription. A group has one active member: the one whose connection has the group's lock. What it has
// handled is stored over the same connection, so that a member that lost the lock cannot move the position.
type source struct {
	b     *broker
	table table
	group string

	mu     sync.Mutex // held during a request on conn; guards what follows
	conn   *pgxpool.Conn
	next   position // what was fetched last
	open   []*row   // fetched and not stored as handled, in order
	idle   time.Duration
	closed bool
}

// row is the token of a delivery.
type row struct {
	at      position
	settled bool
}

// Consume begins a subscription.
func (b *broker) Consume(ctx context.Context, topic, group string) (driver.Source, error) {
	if err := b.Declare(ctx, topic, group); err != nil {
		return nil, err
	}
	t, err := b.table(ctx, topic)
	if err != nil {
		return nil, err
	}
	s := &source{b: b, table: t, group: group, idle: time.Millisecond}
	if group == "" { // transactions that begin from now on
		var xmax string
		if err := b.pool.QueryRow(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text").Scan(&xmax); err != nil {
			return nil, err
		}
		s.next.transaction, err = strconv.ParseUint(xmax, 10, 64)
	}
	return s, err
}

// errNotActive means that another member of the group is active.
var errNotActive = errors.New("engines: postgres: another member of the group is active")

// Fetch reads the next messages. While another member of the group is active it waits.
func (s *source) Fetch(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	for ctx.Err() == nil {
		deliveries, err := s.read(ctx, maximum)
		if len(deliveries) > 0 {
			s.idle = time.Millisecond
			return deliveries, nil
		}
		if err != nil && !errors.Is(err, errNotActive) {
			return nil, err
		}
		s.idle = min(2*s.idle, max(s.b.poll, time.Millisecond))
		timer := time.NewTimer(s.idle)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil, ctx.Err()
}

func (s *source) read(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("engines: postgres: the subscription is closed")
	}
	// Not ctx: what it interrupts costs the connection, and with it the lock.
	request, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	if err := s.connectLocked(request); err != nil {
		return nil, err
	}
	rows, err := s.conn.Query(request, `SELECT transaction_id::text AS number, "offset", uuid, payload, metadata::text FROM `+s.table.messages+`
		WHERE (transaction_id, "offset") > ($1::text::xid8, $2::bigint) AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
		ORDER BY transaction_id, "offset" LIMIT $3`, strconv.FormatUint(s.next.transaction, 10), s.next.offset, maximum)
	if err != nil {
		return nil, s.lostLocked(err)
	}
	deliveries, err := pgx.CollectRows(rows, s.delivery)
	if err != nil {
		return nil, s.lostLocked(err)
	}
	for _, d := range deliveries {
		token := d.Token.(*row) //nolint:forcetypeassert // delivery made it
		s.open = append(s.open, token)
		s.next = token.at
	}
	return deliveries, nil
}

func (s *source) delivery(r pgx.CollectableRow) (driver.Delivery, error) {
	var transaction, uuid string
	var metadata *string
	var payload []byte
	token := &row{}
	if err := r.Scan(&transaction, &token.at.offset, &uuid, &payload, &metadata); err != nil {
		return driver.Delivery{}, err
	}
	var err error
	if token.at.transaction, err = strconv.ParseUint(transaction, 10, 64); err != nil {
		return driver.Delivery{}, err
	}
	msg := message.NewMessage(uuid, payload)
	if metadata != nil {
		_ = json.Unmarshal([]byte(*metadata), &msg.Metadata) // what is no map of strings is not of here
		delete(msg.Metadata, driver.IDHeader)
	}
	id := fmt.Sprintf("%s%d/%d", s.table.id, token.at.transaction, token.at.offset)
	return driver.Delivery{Message: msg, ID: id, Token: token}, nil
}

// connectLocked takes a connection, the group's lock, and the group's position. What was fetched over an earlier
// connection is in hand still, unless another member has handled it since.
func (s *source) connectLocked(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	conn, err := s.b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	if s.group != "" {
		var locked bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", s.table.id+s.group).Scan(&locked); err != nil || !locked {
			conn.Release()
			return errors.Join(err, ifNot(locked))
		}
		var transaction string
		var offset int64
		err := conn.QueryRow(ctx, "SELECT last_processed_transaction_id::text, offset_acked FROM "+s.table.offsets+" WHERE consumer_group = $1",
			s.group).Scan(&transaction, &offset)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			closeConn(conn)
			return err
		}
		stored := position{offset: offset}
		stored.transaction, _ = strconv.ParseUint(transaction, 10, 64)
		if s.next.before(stored) {
			s.next = stored
		}
		s.open = slices.DeleteFunc(s.open, func(r *row) bool { return !stored.before(r.at) })
	}
	s.conn = conn
	return nil
}

func ifNot(locked bool) error {
	if locked {
		return nil
	}
	return errNotActive
}

// lostLocked gives up a connection that had an error, and with it the lock.
func (s *source) lostLocked(err error) error {
	if s.conn != nil {
		closeConn(s.conn)
		s.conn = nil
	}
	return err
}

// closeConn ends a connection for good, which frees its locks.
func closeConn(c *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	_ = c.Hijack().Close(ctx) // it is given up
}

// Settle stores how far the topic is handled without a gap.
func (s *source) Settle(ctx context.Context, deliveries []driver.Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range deliveries {
		d.Token.(*row).settled = true //nolint:forcetypeassert // delivery made it
	}
	if s.group != "" {
		switch err := s.connectLocked(ctx); {
		case errors.Is(err, errNotActive):
			return nil // the active member handles them too
		case err != nil:
			return err
		}
	}
	n := 0
	for n < len(s.open) && s.open[n].settled {
		n++
	}
	if n == 0 || s.group == "" {
		s.open = slices.Clone(s.open[n:])
		return nil
	}
	at := s.open[n-1].at
	_, err := s.conn.Exec(ctx, `INSERT INTO `+s.table.offsets+` (consumer_group, offset_acked, last_processed_transaction_id)
		VALUES ($1, $2, $3::text::xid8) ON CONFLICT (consumer_group) DO UPDATE
		SET offset_acked = excluded.offset_acked, last_processed_transaction_id = excluded.last_processed_transaction_id`,
		s.group, at.offset, strconv.FormatUint(at.transaction, 10))
	if err != nil {
		return s.lostLocked(err)
	}
	s.open = slices.Clone(s.open[n:])
	return nil
}

// Extend has nothing to do: the connection keeps the lock.
func (*source) Extend(context.Context, []driver.Delivery) error { return nil }

// Return has nothing to do: what is not stored as handled goes to the next active member.
func (*source) Return(context.Context, []driver.Delivery) error { return nil }

// Close ends the connection, so that another member becomes active.
func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.lostLocked(nil)
	return nil
}
