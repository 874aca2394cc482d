package tests

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func TestLimits_ConnectionsBeyondThemAreRefused(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxConnections: 1, MaxConnectionsPerHost: 1}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	first := greetedPeer(t, h.address)
	outcome, code := documentedFault(t, "more connections than the listener takes, in all or from an address")
	require.Equal(t, "Failure", outcome)
	p := dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame})
	got, failed := p.ended()
	require.True(t, failed)
	require.Equal(t, code, got)

	pub := sender(t, buffstreams.AckedConfig{}, nil) // waits for a place
	result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) })
	first.cut()
	require.NoError(t, requireResult(t, result))
	receiveAcked(t, messages, 1)
}

func TestLimits_TooManyPingsAreAFault(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
	outcome, code := documentedFault(t, "more than 1,000 pings in a second")
	require.Equal(t, "Failure", outcome)
	p := greetedPeer(t, h.address)
	ping := sealed(payloadOf(t, &wire.Ping{Id: 1}))
	go func() { // ends with the connection
		for {
			if _, err := p.conn.Write(bytes.Repeat(ping, 2000)); err != nil {
				return
			}
		}
	}()
	got, failed := p.ended()
	require.True(t, failed)
	require.Equal(t, code, got)
}

func TestLimits_OfStateRefuseAndGoOn(t *testing.T) {
	outcome, code := documentedFault(t, "more publishers, streams or topics than the listener takes")
	require.Equal(t, "Opened", outcome)
	for name, c := range map[string]struct {
		limits buffstreams.AckedConfig
		more   func(*wire.Open)
	}{
		"publishers": {buffstreams.AckedConfig{MaxPublishers: 1}, func(o *wire.Open) { o.Publisher = bytes.Repeat([]byte{9}, 16) }},
		"streams":    {buffstreams.AckedConfig{MaxStreams: 1}, func(o *wire.Open) { o.Stream = 9 }},
		"topics":     {buffstreams.AckedConfig{MaxTopics: 1}, func(o *wire.Open) { o.Topic = "b" }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{Acked: c.limits})
			require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
			first := greetedPeer(t, h.address).opens(opening(nil)).credited()
			other := greetedPeer(t, h.address)
			for range 3 {
				other.send(opening(func(o *wire.Open) { o.Handle = 8; c.more(o) }))
				opened := take[*wire.Opened](other)
				require.Equal(t, code, opened.Code)
				require.Contains(t, opened.Reason, name)
			}
			first.publish(1, false, envelope(t, "x"))
			first.until(func() bool { return first.next == 2 })
		})
	}
}
