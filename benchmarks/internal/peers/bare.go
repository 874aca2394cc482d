package peers

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// Bare feeds subscribers from a Go channel that nothing else is attached to: with a Router behind it, it is the most
// that the Router can do.
var Bare = Peer{
	Name: "bare channel", Guarantee: "none: nobody looks at acks",
	Settings: "a channel of 256 messages", Unordered: true,
	Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
		c := &bareChannel{messages: make(chan *message.Message, 256)}
		wait, err := s.consume(c, []string{""}, tally)
		if err != nil {
			return nil, err
		}
		return inProcess{at{"", ends{c.Close, wait}}, c, []string{""}}, nil
	},
	Dial: dialGoChannel,
}

type bareChannel struct {
	messages chan *message.Message
	once     sync.Once
}

func (c *bareChannel) Publish(_ string, messages ...*message.Message) error {
	for _, msg := range messages {
		c.messages <- msg
	}
	return nil
}

func (c *bareChannel) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return c.messages, nil
}

func (c *bareChannel) Close() error {
	c.once.Do(func() { close(c.messages) })
	return nil
}
