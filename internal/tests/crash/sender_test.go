//go:build linux

package crash

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// sender publishes to one topic.
type sender struct {
	pub           *buffstreams.Publisher
	outbox        *outbox.Outbox
	name, address string
	topic         string
	next          uint64 // number
}

// send publishes a few messages in one call. It announces their numbers before, so that the parent never gives them out
// again.
func (s *sender) send() error {
	count := 1 + rand.Uint64N(batchSize)
	msgs := make([]*message.Message, count)
	for i := range msgs {
		text := fmt.Sprintf("%s %s %d %s", s.name, s.topic, s.next+uint64(i), strings.Repeat("x", rand.IntN(200)))
		msgs[i] = message.NewMessage(watermill.NewUUID(), []byte(text))
	}
	say("try %s %d %d", s.topic, s.next, s.next+count-1)
	if err := s.pub.Publish(s.address+"/"+s.topic, msgs...); err != nil {
		return err
	}
	say("confirmed %s %d %d", s.topic, s.next, s.next+count-1)
	s.next += count
	return nil
}

// keepSending sends until stop is closed. Now and then it rests: then nothing is pending when somebody dies.
func (s *sender) keepSending(stop <-chan struct{}) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for resting := false; ; {
		select {
		case <-tick.C:
		case <-stop:
			return nil
		}
		left := s.pending()
		if left > backlog || resting && (left > 0 || rand.IntN(20) > 0) {
			continue
		}
		resting = rand.IntN(100) == 0
		if err := s.send(); err != nil {
			return err
		}
	}
}

func (s *sender) pending() uint64 {
	for _, stream := range s.outbox.Streams() {
		if stream.Key.Topic == s.topic {
			return stream.Pending
		}
	}
	return 0
}
