package tests

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
)

// TestUniversal is Watermill's own suite. That of this library is in internal/tests, with the same types.
func TestUniversal(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		if f.ownSuite {
			t.Skip("internal/tests has it")
		}
		features := tests.Features{
			ConsumerGroups: f.lasting, GuaranteedOrder: false, GuaranteedOrderWithSingleSubscriber: f.name == "nats" || f.name == "gochannel",
			Persistent: f.lasting, RequireSingleInstance: f.one, ForceShort: true,
			ExactlyOnceDelivery: f.name == "gochannel", // as Watermill has it for its own suite of GoChannel
		}
		make1 := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
			f := &fixture{T: t, subject: f.subject, base: f.base}
			parameters := "persistent=true"
			if f.lasting {
				parameters = "group=" + group
			}
			e, err := engines.Open(t.Context(), f.url(parameters), drivers()...)
			require.NoError(t, err)
			t.Cleanup(func() { _ = e.Close() })
			sub, err := e.Subscriber()
			require.NoError(t, err)
			return e.Publisher(), sub
		}
		tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) { return make1(t, "test") }, make1)
	})
}
