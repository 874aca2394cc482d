package session

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// welcomePayload is the payload of a Welcome.
func welcomePayload(t *testing.T, p *pair) []byte {
	frame, err := p.enc.AppendControl(nil, &wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
		Version: Version, MaxFrame: MinFrame, MaxMessage: 1000,
	}}})
	require.NoError(t, err)
	opened, err := p.enc.Verify(frame[4:])
	require.NoError(t, err)
	return opened
}

func TestClient_FloodOfPingsEndsTheConnection(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	require.NoError(t, p.client.Receive(welcomePayload(t, p), p.now))
	payload := func(id uint64) []byte {
		frame, err := p.enc.AppendControl(nil, &wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: id}}})
		require.NoError(t, err)
		opened, err := p.enc.Verify(frame[4:])
		require.NoError(t, err)
		return opened
	}
	for range 3 { // answered in between, there can be any number
		for i := range uint64(maxReplies) {
			require.NoError(t, p.client.Receive(payload(i), time.Now()))
		}
		p.client.Output(nil, 1<<20)
	}
	for i := range uint64(maxReplies) {
		require.NoError(t, p.client.Receive(payload(i), time.Now()))
	}
	var broken *ProtocolError
	require.ErrorAs(t, p.client.Receive(payload(0), time.Now()), &broken)
}

func TestClient_InterruptEndsWaitsAndKeepsMessages(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	o := p.client.Stream("a")
	w := &Waiter{Level: Received, First: 1, Last: 1, Done: make(chan struct{}, 1)}
	p.client.Await(o, w)
	room := o.Room()
	why := errors.New("why")
	p.client.Interrupt(why)
	<-w.Done
	<-room
	require.Equal(t, why, w.Err)
	require.NoError(t, o.Err(), "the stream goes on")
}
