package tests

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/monitor"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestOutboxReady_OfAPublisherAndItsPage: a destination without room is named by the outbox, by its publisher and by /readyz of a
// monitor that shows either, and all are ready again once the destination takes its messages.
func TestOutboxReady_OfAPublisherAndItsPage(t *testing.T) {
	t.Parallel()
	dir, h := t.TempDir(), newHouse(t, buffstreams.ManagerConfig{})
	ob, err := outbox.Open(outbox.Config{Dir: dir, QuotaBytes: 64 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ob.Close()) })
	pub := stored(t, ob, nil)
	pages := map[string]monitor.Config{
		"outbox orders":  {Outboxes: map[string]monitor.Outbox{"orders": ob}},
		"publisher shop": {Publishers: map[string]*buffstreams.Publisher{"shop": pub}},
	}
	readyz := func(t *testing.T, cfg monitor.Config) (int, string) {
		t.Helper()
		m, err := monitor.New(cfg)
		require.NoError(t, err)
		defer func() { require.NoError(t, m.Close()) }()
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://127.0.0.1/readyz", http.NoBody)
		r.RemoteAddr = "127.0.0.1:1"
		m.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	look, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, ob.Ready(look))
	require.NoError(t, pub.Ready(look))

	large := newMessage(string(make([]byte, 1000)))
	for err = nil; err == nil; { // nothing subscribes there yet
		err = pub.Publish(h.topic("a"), large)
	}
	require.ErrorIs(t, err, store.ErrOutboxFull)
	require.ErrorIs(t, ob.Ready(look), store.ErrOutboxFull)
	require.ErrorContains(t, ob.Ready(look), h.address)
	err = pub.Ready(look)
	require.ErrorIs(t, err, buffstreams.ErrNotReady)
	require.ErrorContains(t, err, "the Outbox "+dir+": outbox: full: destination ")
	require.ErrorContains(t, err, h.address)
	for name, cfg := range pages {
		require.Eventually(t, func() bool { // Stats are kept for a second
			code, body := readyz(t, cfg)
			return code == http.StatusServiceUnavailable && strings.Contains(body, name) && strings.Contains(body, h.address)
		}, patience, patience/1000)
	}

	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	go func() { // ends with the Subscriber
		for msg := range messages {
			msg.Ack()
		}
	}()
	within, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, ob.Ready(within))
	require.NoError(t, pub.Ready(within))
	for _, cfg := range pages {
		require.Eventually(t, func() bool { code, _ := readyz(t, cfg); return code == http.StatusOK }, patience, patience/1000)
	}
	drain(t, pub)
}
