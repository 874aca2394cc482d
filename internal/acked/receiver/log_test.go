package receiver

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// What one host does again and again is logged once a minute, with how often it was: a line of a single event has no
// count.
func TestLog_CountsWhatAHostRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := testkit.NewLog()
		cfg := complete(Config{Logger: log})
		r := newReceiver(cfg)
		defer r.cancel()
		defer r.leaveStore()
		c := newConn(r, testkit.NewScriptedConn(nil))
		defer c.flusher.Close()
		why := errors.New("why")
		for name, say := range map[string]func(){
			"a connection that ends": func() { r.logEnd(c, why) },
			"a peer that is refused": func() { r.guard.log("refused", why, c.nc.RemoteAddr(), nil) },
		} {
			counts := func() (counts []any) {
				for len(log.Lines) > 0 {
					line := <-log.Lines
					require.Equal(t, "why", line.Fields["err"], name)
					require.Equal(t, r.cfg.Address, line.Fields["address"], name)
					counts = append(counts, line.Fields["count"])
				}
				return counts
			}
			for range 5 {
				say()
			}
			require.Equal(t, []any{nil}, counts(), name)
			time.Sleep(time.Minute)
			say()
			require.Equal(t, []any{5}, counts(), name)
			time.Sleep(time.Minute)
			say()
			require.Equal(t, []any{nil}, counts(), name)
		}
		r.logAccept(net.UnknownNetworkError("x"), time.Second)
		require.Equal(t, 1, (<-log.Lines).Fields["count"])
	})
}
