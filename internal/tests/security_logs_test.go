package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// captured is a logger that keeps everything.
type captured struct {
	mu  *sync.Mutex
	all *bytes.Buffer
}

func (c captured) line(msg string, err error, fields watermill.LogFields) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c.all, "%s|%v|%v\n", msg, err, fields)
}

func (c captured) Error(msg string, err error, f watermill.LogFields) { c.line(msg, err, f) }

func (c captured) Info(msg string, f watermill.LogFields) { c.line(msg, nil, f) }

func (c captured) Debug(msg string, f watermill.LogFields) { c.line(msg, nil, f) }

func (c captured) Trace(msg string, f watermill.LogFields) { c.line(msg, nil, f) }

func (c captured) With(watermill.LogFields) watermill.LoggerAdapter { return c }

func (c captured) holds(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(c.all.String(), text)
}

func TestLogs_HoldNoSecretsAndNoPayloads(t *testing.T) {
	log := captured{new(sync.Mutex), new(bytes.Buffer)}
	const token, payload, forged = "tok-SECRET-1", "payload-SECRET-2", "\nFORGED LINE"
	h := newHouse(t, buffstreams.ManagerConfig{Logger: log, Acked: buffstreams.AckedConfig{
		Authenticate: func(_ context.Context, p buffstreams.Peer) (string, error) {
			if p.Token != token {
				return "", fmt.Errorf("the agent %s is unknown", p.Agent) // a careless hook
			}
			return "orders" + forged, nil
		},
		Authorize: func(_ context.Context, a buffstreams.Access) error {
			if strings.HasPrefix(a.Topic, "forbidden") {
				return errors.New("no" + forged)
			}
			return nil
		},
	}})
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: h.manager, MaxAttempts: 1, NackResendSleep: buffstreams.NoSleep}, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	messages := subscribe(t, sub, h.topic("a"))
	with := func(token string) *buffstreams.Publisher {
		cfg := buffstreams.PublisherConfig{CloseTimeout: time.Millisecond, Confirm: buffstreams.ConfirmHandled}
		cfg.ManagerConfig = buffstreams.ManagerConfig{Logger: log, Acked: quick(bearer(token))}
		pub, err := buffstreams.NewPublisher(cfg, log)
		require.NoError(t, err)
		t.Cleanup(func() { _ = pub.Close() })
		return pub
	}
	good := with(token)
	later := later(func() error { return good.Publish(h.topic("a"), newMessage(payload)) })
	receive(t, messages).Nack() // fails for good
	require.Error(t, requireResult(t, later))
	require.ErrorIs(t, with("wrong-SECRET-3").Publish(h.topic("a"), newMessage(payload)), buffstreams.ErrUnauthenticated)
	require.ErrorIs(t, good.Publish(h.topic("forbidden"), newMessage(payload)), buffstreams.ErrForbidden)

	p := dialPeer(t, h.address) // lies in everything that it may say
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte("lie-SECRET-4"), Agent: "x" + forged})
	p.ended()
	p = dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte(token), Agent: "x" + forged})
	take[*wire.Welcome](p)
	secret := bytes.Repeat([]byte("s"), 16)
	p.send(opening(func(o *wire.Open) { o.Topic, o.Secret = "forbidden"+forged, secret }))
	take[*wire.Opened](p)
	s := p.opens(opening(func(o *wire.Open) { o.Topic, o.Secret = "a", secret })).credited()
	s.publish(1, false, []byte("\xff\xffundecodable-SECRET-5"))
	s.until(func() bool { return len(s.rejects) > 0 })
	s.send(&wire.Failure{Code: wire.Code_CODE_FAILED, Reason: "x" + forged})
	p.ended()

	require.Eventually(t, func() bool { return log.holds("the peer gave up") }, patience, time.Millisecond)
	for _, said := range []string{"not authenticated", "may not publish", "refused by the peer", "rejected"} {
		require.True(t, log.holds(said), "the test did not come to: %s\n%s", said, log.all)
	}
	for _, never := range []string{"SECRET", forged, string(secret)} {
		require.False(t, log.holds(never), "%q is in the log:\n%s", never, log.all)
	}
}
