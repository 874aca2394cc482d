package tests

import (
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// TestPostgres_TransactionsAreInTheOrderOfTheirNumbers: also where a number gets one digit more. Ordered as text the rest was
// skipped.
func TestPostgres_TransactionsAreInTheOrderOfTheirNumbers(t *testing.T) {
	s := subjects()[6]
	f := &fixture{T: t, subject: s, base: s.base(t), topic: "digits-" + watermill.NewShortUUID()}
	e := f.open("group=g")
	messages := f.subscribe(e, "g")
	f.publish(e, 0, 1, 0)
	receive(t, messages).Ack()
	pool, err := pgxpool.New(t.Context(), f.base)
	require.NoError(t, err)
	defer pool.Close()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "SET synchronous_commit = off")
	require.NoError(t, err)
	const before = 8
	var now, power int64 = 0, 1000
	for {
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint").Scan(&now))
		for power <= now {
			power *= 10
		}
		require.LessOrEqual(t, power, int64(100_000), "the server is too old for this test")
		if power-now <= before {
			break
		}
		_, err := conn.Exec(t.Context(), "DO $$ BEGIN FOR i IN 1.."+strconv.FormatInt(min(power-now-before, 500), 10)+
			" LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
		require.NoError(t, err)
	}
	for i := 1; i < 1+2*before; i++ { // a transaction each
		f.publish(e, i, i+1, 0)
	}
	for i := 1; i < 1+2*before; i++ {
		msg := receive(t, messages)
		assert.Equal(t, strconv.Itoa(i), string(msg.Payload))
		msg.Ack()
	}
}

// TestPostgres_LooksBackBehindWhatIsOnItsWay: a publisher that was killed can have sent a statement that is not through. Who looks
// back then waits for it.
func TestPostgres_LooksBackBehindWhatIsOnItsWay(t *testing.T) {
	s := subjects()[6]
	f := &fixture{T: t, subject: s, base: s.base(t), topic: "back-" + watermill.NewShortUUID()}
	e := f.open("")
	f.publish(e, 0, 1, 0)
	conn, err := pgx.Connect(t.Context(), f.base)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	table := pgx.Identifier{"watermill_" + f.topic}.Sanitize()
	_, err = tx.Exec(t.Context(), `INSERT INTO `+table+` (uuid, metadata, transaction_id)
		SELECT 'u', '{"`+driver.IDHeader+`":"late"}', pg_current_xact_id() FROM pg_advisory_xact_lock_shared(hashtextextended($1, 1))`, table)
	require.NoError(t, err)
	committed := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() { committed <- tx.Commit(t.Context()) }) // real time: Recent waits meanwhile
	ids, _, err := e.Recent(t.Context(), f.topic, 10)
	require.NoError(t, <-committed)
	require.NoError(t, err)
	assert.Contains(t, ids, "late")
}
