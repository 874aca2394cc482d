package peers

import (
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// GoChannel is Watermill's Pub/Sub inside a process. By default it starts two goroutines a message and returns: nothing
// holds back the publisher, and messages overtake one another.
var (
	GoChannel = Peer{
		Name: "GoChannel", Guarantee: "a goroutine of this process has it",
		Settings: "defaults", Window: goChannelWindow, Unordered: true,
		Receive: receiveGoChannel(gochannel.Config{}), Dial: dialGoChannel,
	}
	GoChannelBlock = Peer{
		Name: "GoChannel, BlockPublishUntilSubscriberAck", Guarantee: "its handler, in this process, has acked it",
		Settings: "BlockPublishUntilSubscriberAck",
		Receive:  receiveGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}), Dial: dialGoChannel,
	}
)

// goChannelWindow is near the fastest: more goroutines that wait make it slower.
const goChannelWindow = 1024

// inProcess is a receiving end whose publisher is the same object.
type inProcess struct {
	at
	pub    message.Publisher
	topics []string
}

func receiveGoChannel(cfg gochannel.Config) func(Setup, *measure.Tally) (Receiver, error) {
	return func(s Setup, tally *measure.Tally) (Receiver, error) {
		g := gochannel.NewGoChannel(cfg, nil)
		wait, err := s.consume(g, s.topics(), tally)
		if err != nil {
			return nil, err
		}
		return inProcess{at{"", ends{g.Close, wait}}, g, s.topics()}, nil
	}
}

func dialGoChannel(s Setup, to Receiver) (Sender, error) {
	local, ok := to.(inProcess)
	if !ok {
		return nil, errLocal
	}
	return s.publishing(open{local.pub}, local.topics), nil
}

// open leaves a publisher open: its receiving end closes it.
type open struct{ message.Publisher }

func (open) Close() error { return nil }
