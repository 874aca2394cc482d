package bridge

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// A message has one name however often it comes, and no other message has it: not that of another publisher, nor of
// another stream of the same one, nor one without a place.
func TestIdentify_NamesAreOfTheirStreams(t *testing.T) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{MaxInFlight: 100, NackResendSleep: buffstreams.NoSleep}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	topics := []string{"127.0.0.1:0/a", "127.0.0.1:0/b"}
	var came []<-chan *message.Message
	for i, topic := range topics {
		messages, err := sub.Subscribe(t.Context(), topic)
		require.NoError(t, err)
		at, err := sub.Addr(topic)
		require.NoError(t, err)
		came = append(came, messages)
		topics[i] = at.String() + topic[len("127.0.0.1:0"):]
	}
	var publishers []*buffstreams.Publisher
	for range 2 {
		p, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, p.Close()) })
		publishers = append(publishers, p)
	}
	p, names := &pipe{}, map[string]bool{}
	for range 3 { // in turns: of one to the next, either the publisher changes or the topic
		for _, at := range [][2]int{{0, 0}, {0, 1}, {1, 1}, {1, 0}} {
			topic, pub := at[0], publishers[at[1]]
			require.NoError(t, pub.Publish(topics[topic], message.NewMessage("the same", nil)))
			m := <-came[topic]
			name := p.identify(m)
			require.False(t, names[name], name)
			names[name] = true
			m.Nack()
			again := <-came[topic]
			require.Equal(t, name, p.identify(again))
			again.Ack()
		}
	}
	require.Len(t, names, 12)
	require.Equal(t, "uuid/u", p.identify(message.NewMessage("u", nil)))
	require.Empty(t, p.identify(message.NewMessage("", nil)))
}

// The last names are known, each once; what has no name is never known.
func TestSeen_RemembersTheLast(t *testing.T) {
	s := newSeen(2)
	known := func() (all string) {
		for _, name := range []string{"", "a", "b", "c"} {
			if s.has(name) {
				all += name + "."
			}
		}
		return all
	}
	for _, step := range []struct{ add, want string }{{"a", "a."}, {"", "a."}, {"b", "a.b."}, {"a", "a.b."}, {"c", "b.c."}, {"a", "a.c."}, {"b", "a.b."}} {
		s.add([]*held{{id: step.add}})
		require.Equal(t, step.want, known())
	}
	none := newSeen(-1)
	none.add([]*held{{id: "a"}})
	require.False(t, none.has("a"))
}
