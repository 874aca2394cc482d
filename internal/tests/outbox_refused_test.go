package tests

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// unreadable are messages that no Unmarshaler of envelopes takes.
const unreadable = "\xff\xff"

// TestOutbox_ManyRefusedMessagesWaitForOnFailure, of which it keeps them: the topic goes on when OnFailure does.
func TestOutbox_ManyRefusedMessagesWaitForOnFailure(t *testing.T) {
	const count = 2500 // more than may wait for OnFailure
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	logged, goOn, told := make(chan error, 2*count), make(chan struct{}), 0
	ob := openOutbox(t, t.TempDir())
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob, Marshaler: buffstreams.RawMarshaler{}, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
		OnFailure: func(_ string, encoded []byte, err error) {
			<-goOn
			if string(encoded) == unreadable {
				told++
			}
		},
	}, errorLog{to: logged})
	require.NoError(t, err)
	bad := newMessages(count)
	for _, msg := range bad {
		msg.Payload = []byte(unreadable)
	}
	require.NoError(t, pub.Publish(h.topic("a"), bad...))
	var said bool // that the topic waits
	for refused := 0; refused < count; {
		if err := await(t, logged); errors.Is(err, buffstreams.ErrUndecodable) {
			refused++
		} else {
			require.ErrorIs(t, err, buffstreams.ErrUndelivered)
			said = true
		}
	}
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("")))
	if !said {
		require.ErrorIs(t, await(t, logged), buffstreams.ErrUndelivered)
	}
	require.Equal(t, count+1, pendingIn(ob))
	close(goOn)
	receiveAcked(t, messages, 1)
	drain(t, pub)
	require.NoError(t, pub.Close())
	require.Equal(t, count, told, "each once")
}

// TestOutbox_TellsNoPublisherThatHasClosed: the one that goes on is told of what the other has published.
func TestOutbox_TellsNoPublisherThatHasClosed(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	ob := openOutbox(t, t.TempDir())
	told := make(chan string, 10)
	publisher := func(name string) *buffstreams.Publisher {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Outbox: ob, Marshaler: buffstreams.RawMarshaler{}, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
			OnFailure: func(_ string, encoded []byte, _ error) { told <- name + " " + string(encoded) },
		}, nil)
		require.NoError(t, err)
		return pub
	}
	lives, closes := publisher("lives"), publisher("closes")
	require.NoError(t, closes.Publish(h.topic("a"), newMessage(unreadable)))
	require.NoError(t, closes.Close())
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	go ackAll(messages) // ends with h
	require.Equal(t, "lives "+unreadable, await(t, told))
	drain(t, lives)
	require.NoError(t, lives.Close())
	require.Empty(t, told)
}
