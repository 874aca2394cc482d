package clients

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A publisher of this library has a route of three listeners in another language. The first ends in order: what it has not
// handled is given back, and nothing comes twice. The second is killed: what was in hand there may.
func TestClients_StreamsMove(t *testing.T) {
	for _, to := range languages()[1:] {
		t.Run("go to "+to.name, func(t *testing.T) {
			t.Parallel()
			var subs []*process
			var addresses []string
			for range 3 {
				sub := to.start(t, "sub", "127.0.0.1:0", "orders")
				subs = append(subs, sub)
				addresses = append(addresses, sub.listening())
			}
			w := &world{t: t, from: languages()[0], to: to, net: newProxy(t, 1, 0), account: newAccount()}
			w.sub, w.pub = subs[0], languages()[0].start(t, "pub", strings.Join(addresses, ","), "orders")

			w.pump(func() bool { return len(w.account.confirmed) >= 500 }, true)
			for _, line := range w.sub.finished(true) {
				w.account.say(w.sub, line)
			}
			require.NotEmpty(t, w.account.handled, "the first address is preferred")
			first := len(w.account.handled)
			w.sub = subs[1]
			w.pump(func() bool { return len(w.account.confirmed) == w.account.given }, false)
			for len(w.account.handled) < w.account.given { // what was confirmed is on its way
				w.account.say(w.sub, w.sub.next())
			}
			require.Zero(t, w.check(), "what an orderly end gave back was not handled before")

			more := w.account.given + 500
			w.pump(func() bool { return w.account.given >= more }, true)
			for _, line := range w.sub.killed() {
				w.account.say(w.sub, line)
			}
			w.account.excuse()
			w.sub = subs[2]
			w.pump(func() bool { return w.account.given >= more+500 }, true)
			w.drain()
			t.Logf("%d of %d at the first, which ended; %d twice when the second was killed", first, w.account.given, w.check())
		})
	}
}
