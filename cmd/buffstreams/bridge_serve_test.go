package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
)

// What --listen serves: a bridge that has not begun is alive, and not ready.
func TestBridge_ServesItsState(t *testing.T) {
	t.Parallel()
	source, err := engines.Open(t.Context(), "gochannel:?group=g")
	require.NoError(t, err)
	destination, err := engines.Open(t.Context(), "gochannel:")
	require.NoError(t, err)
	defer func() { require.NoError(t, source.Close()); require.NoError(t, destination.Close()) }()
	b, err := bridge.Open(t.Context(), bridge.Config{Source: source, Destination: destination, Topics: []bridge.Topic{{From: "a", To: "b"}}})
	require.NoError(t, err)
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		bridgeHandler(b).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		return w
	}
	require.Equal(t, []any{200, "ok\n"}, []any{get("/healthz").Code, get("/healthz").Body.String()})
	require.Equal(t, []any{503, "bridge: starting\n"}, []any{get("/readyz").Code, get("/readyz").Body.String()})
	require.Equal(t, "application/json", get("/progress").Header().Get("Content-Type"))
	require.JSONEq(t, `{"Received":0,"Forwarded":0,"Bytes":0,"Skipped":0,"Refused":0,"Retries":0,"InHand":0}`, get("/progress").Body.String())
	require.Equal(t, "forwarded 1, in hand 2, refused 3, skipped 4", progressLine(bridge.Stats{Forwarded: 1, InHand: 2, Refused: 3, Skipped: 4}))
	first := &firstLine{stop: make(chan struct{})}
	(&bridgeFlags{}).report(b, first, nil) // no lines are wanted
	(&bridgeFlags{progress: time.Millisecond}).report(b, first, first.stop)
	require.Equal(t, "forwarded 0, in hand 0, refused 0, skipped 0, 0/s: not ready: bridge: starting\n", first.text)
}

// firstLine keeps the first line, and closes stop then.
type firstLine struct {
	text string
	stop chan struct{}
}

func (f *firstLine) Write(b []byte) (int, error) {
	if f.text == "" {
		f.text = string(b)
		close(f.stop)
	}
	return len(b), nil
}
