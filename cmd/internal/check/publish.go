package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// MarkKey is the metadata key of the message that Publish sends, for handlers to pass over.
const MarkKey = "buffstreams_check"

// PublishOptions say where to publish to.
type PublishOptions struct {
	Topic       string
	Confirm     buffstreams.Confirm
	ConfirmName string
	Limits      Limits
	Access      access.Access
}

// Publish publishes a message without a payload, and waits for its confirmation.
func Publish(ctx context.Context, o PublishOptions) (r Result, err error) {
	if _, err := pipe.ParseTopic(o.Topic); err != nil {
		return Result{}, err
	}
	acked := pipe.AckedConfig(1 << 10)
	if err := o.Access.Client(&acked); err != nil {
		return Result{}, err
	}
	timeout := time.Minute
	if end, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(end), time.Millisecond)
	}
	const goodbye = time.Second // of what a timed out message leaves behind
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: acked, CloseTimeout: goodbye})
	if err != nil {
		return Result{}, err
	}
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: manager, Confirm: o.Confirm, PublishTimeout: timeout, PublishContext: true, CloseTimeout: goodbye,
	}, watermill.NopLogger{})
	if err != nil {
		return Result{}, errors.Join(err, manager.Close())
	}
	m := message.NewMessage(watermill.NewUUID(), nil)
	m.Metadata.Set(MarkKey, "1")
	interrupted, stop := pipe.Interrupted(ctx)
	defer stop()
	m.SetContext(interrupted)
	begin := time.Now()
	err = publisher.Publish(o.Topic, m)
	took := time.Since(begin)
	closeErr := errors.Join(publisher.Close(), manager.Close())
	if err == nil && o.Confirm == buffstreams.ConfirmEnqueued {
		err = closeErr
	}
	if err != nil {
		var partly *buffstreams.PublishError
		if errors.As(err, &partly) {
			err = partly.Err
		}
		return Result{}, fmt.Errorf("%s: not %s: %w", o.Topic, o.ConfirmName, pipe.Explain(err))
	}
	return Result{
		State: o.Limits.of(took), Text: fmt.Sprintf("%s: %s in %.1f ms", o.Topic, o.ConfirmName, took.Seconds()*1000),
		Perf: []Value{o.Limits.value("time", took)},
	}, nil
}
