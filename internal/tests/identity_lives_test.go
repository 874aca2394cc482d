package tests

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestIdentity_RestoredOutboxOfALifeThatWentOn: the receiver has last heard of an incarnation that the backup knows
// too, but not of these messages, as the backup was made before them. What the restored outbox has stored since, and
// could not send before it was closed or killed, has their sequences.
func TestIdentity_RestoredOutboxOfALifeThatWentOn(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 3} {
		for _, restarts := range []int{1, 3} {
			for _, killed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d messages in the backup, %d lives cut off, killed %v", before, restarts, killed), func(t *testing.T) {
					t.Parallel()
					box := filepath.Join(t.TempDir(), "box")
					topic, seen := freeAddress(t)+"/orders", newSink()
					sinkAt(t, seen, nil, topic)
					a := startHost(t, box)
					a.publish(topic, "before", 1, before)
					drain(t, a.pub)
					backup := a.backup()
					a.publish(topic, "lost", 1, 2)
					drain(t, a.pub)
					a.crash()
					copyTo(t, backup, box)
					for restart := range restarts {
						b := startHostCutOff(t, box)
						b.publish(topic, "new", 5*restart+1, 5*restart+5)
						if killed {
							b.crash()
						} else {
							b.stop()
						}
					}
					c := startHost(t, box)
					drain(t, c.pub)
					got, _ := seen.count("new")
					require.Equal(t, 5*restarts, got)
					require.Equal(t, 1, c.says())
				})
			}
		}
	}
}

// TestIdentity_OrdinaryLivesAreNoCopies: crashes and closes of either side, cuts, and stores that come and go make no outbox
// take itself for a copy.
func TestIdentity_OrdinaryLivesAreNoCopies(t *testing.T) {
	t.Parallel()
	box := filepath.Join(t.TempDir(), "box")
	address, seen, st := freeAddress(t), newSink(), openDedupe(t)
	stop := func() {}
	for life := range 12 {
		if life%3 == 0 {
			stop()
			var kept store.DedupeStore
			if life%2 == 0 {
				kept = st
			}
			stop = sinkAt(t, seen, kept, address+"/a", address+"/b")
		}
		h := startHost(t, box)
		h.publish(address+"/a", "a", 10*life+1, 10*life+5)
		h.publish(address+"/b", "b", 10*life+1, 10*life+5)
		h.net.cut()
		h.publish(address+"/a", "a", 10*life+6, 10*life+10)
		if life%4 == 1 {
			h.crash()
		} else {
			h.net.restore()
			drain(t, h.pub)
			if life%4 == 2 {
				h.crash()
			}
		}
		require.Zero(t, h.says())
		h.stop()
	}
	h := startHost(t, box)
	drain(t, h.pub)
	require.Zero(t, h.says())
	got, _ := seen.count("a")
	require.Equal(t, 120, got)
}
