package receiver

import (
	"fmt"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// LogBehind has a topic log which consumer groups hold it up, and which of their keys, once in a while.
func LogBehind(t *dispatch.Topic, address string, logger watermill.LoggerAdapter) {
	t.OnBehind(func(b dispatch.Behind) {
		fields := watermill.LogFields{
			"provider": netio.Provider, "address": address, "topic": fmt.Sprintf("%.100q", t.Name()),
			"consumer_group": b.Group, "members": b.Members, "unsettled": b.Unsettled,
		}
		switch {
		case b.Group != "":
		case b.Members > 0:
			fields["consumer_group"] = "none: a subscription without a group"
		default:
			fields["consumer_group"] = "none: what is kept for the next subscription without a group"
		}
		if b.WaitForKey > 0 {
			fields["key"], fields["waiting_for_key"] = fmt.Sprintf("%.100q", b.Key), b.WaitForKey
			logger.Info("A key that is stuck holds up its topic", fields)
			return
		}
		logger.Info("A consumer group is a whole window behind, and holds up its topic", fields)
	})
}
