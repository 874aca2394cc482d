package peers

import (
	wnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// JetStream is watermill-nats with a stream in files. Its publisher waits for the server's ack of each message, which
// by default comes before the message is synced to the disk.
var (
	JetStream      = jetStream("JetStream", "AckAsync off: the subscriber awaits that the server took each ack", false)
	JetStreamAsync = jetStream("JetStream, AckAsync", "AckAsync on", true)
)

func jetStream(name, settings string, ackAsync bool) Peer {
	cfg := func(s Setup) wnats.JetStreamConfig {
		return wnats.JetStreamConfig{AutoProvision: true, AckAsync: ackAsync, DurablePrefix: s.Name}
	}
	return Peer{
		Name: name, Guarantee: "the server has it in its file, not yet synced", Window: natsWindow,
		Settings: "file storage, one durable queue group, nats-server embedded beside the subscriber; " + settings,
		Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
			return s.receiveNATS(tally, cfg(s))
		},
		Dial: func(s Setup, to Receiver) (Sender, error) {
			js := cfg(s)
			js.AutoProvision = false // the receiving end did; it would ask the server before every message
			return s.dialNATS(to, js)
		},
	}
}
