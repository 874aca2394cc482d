package buffstreams

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// TestSendAgain_AccountsForWhatWasSentBefore: one of those is refused in the end, though all that came back has arrived elsewhere.
func TestSendAgain_AccountsForWhatWasSentBefore(t *testing.T) {
	m, s, l := newPair(t, AckedConfig{WindowMessages: 2, MoveAfter: time.Hour})
	p, err := NewPublisher(PublisherConfig{Manager: m, Confirm: ConfirmHandled}, nil)
	require.NoError(t, err)
	defer func() { _ = p.Close() }()
	before, elsewhere := newConsumer(l, "before"), newConsumer(l, "elsewhere")
	st := s.NewStream(sender.StreamConfig{Identity: newIdentity(), Topic: "before", Elsewhere: true})
	result := make(chan error, 1)
	go func() { // ends with the Withdraw of MoveTo
		_, _, err := st.Publish(t.Context(), acktest.BatchOf(t, "1", "2", "3", "4"), session.Handled, time.Minute)
		result <- err
	}()
	one, two := before.next(), before.next()
	st.MoveTo(senderTo(t, m, tcp("127.0.0.1:1")))
	var back *sender.WithdrawnError
	require.ErrorAs(t, <-result, &back)
	require.Equal(t, []session.Range{{First: 2, Last: 3}}, back.Messages)

	g := &group{place: new(atomic.Pointer[group]), current: policy.None, identity: newIdentity()}
	g.targets = []*target{{addr: m.addressOf(s), topic: "elsewhere", name: "elsewhere"}}
	g.place.Store(g)
	go func() { // ends when sendAgain has sent the rest
		before.Refuse(one, dispatch.Refusal{Reason: "no"})
		before.Settle(two)
		for range back.Messages[0].Last - back.Messages[0].First + 1 {
			elsewhere.Settle(elsewhere.next())
		}
	}()
	all := part{target: g.targets[0], slot: -1, messages: keyed("a", "b", "c", "d")}
	known := session.Range{First: 1, Last: 1} // lacks it already
	back.Err = errBlocked
	got := p.sendAgain(p.newCallWait(p.state("elsewhere"), nil), g, &all, sendResult{enqueued: 4, lacking: []session.Range{known}}, back)
	var refused *PeerError
	require.ErrorAs(t, got.err, &refused)
	require.ErrorIs(t, got.err, errBlocked)
	require.Equal(t, []session.Range{known, {First: 0, Last: 0}}, got.lacking)
	require.Empty(t, got.missing)
}
