//go:build linux

package resources

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// TestDescriptors_NoneLeft: accept and dial fail with EMFILE for a while.
func TestDescriptors_NoneLeft(t *testing.T) {
	for _, at := range []string{"accept", "dial"} {
		t.Run("at "+at, func(t *testing.T) { run(t, child(t, "descriptors at "+at)) })
	}
}

const (
	famine  = time.Second
	retries = 500 // a loop without a wait makes hundreds of thousands in that time
)

// withoutDescriptors publishes and receives in a process that has only so many descriptors left: with one, dialing
// takes it and accept fails, with none dialing fails.
func withoutDescriptors(left int) error {
	if err := limitDescriptors(256); err != nil {
		return err
	}
	log := &counter{}
	sub, topic, messages, err := subscribe(buffstreams.ManagerConfig{Acked: quick(), Logger: log})
	if err != nil {
		return err
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: buffstreams.ConfirmEnqueued, ManagerConfig: buffstreams.ManagerConfig{Acked: quick()},
	}, nil)
	if err != nil {
		return err
	}
	held, err := hoard(left)
	if err != nil {
		return err
	}
	if err := pub.Publish(topic, numbered(0, 1000)...); err != nil {
		return err
	}
	select {
	case <-messages:
		return errors.New("a message came without a descriptor")
	case <-time.After(famine):
	}
	failures := log.errors.Load()
	began := time.Now()
	for _, f := range held {
		_ = f.Close()
	}
	if err := expect(messages, 0, 1000); err != nil {
		return err
	}
	tell("%d failed accepts in %v; everything arrived %v after descriptors were free", failures, famine, time.Since(began).Round(time.Millisecond))
	if left > 0 && failures == 0 || failures > retries {
		return fmt.Errorf("accept failed %d times in %v", failures, famine)
	}
	if err := pub.Publish(topic, numbered(1000, 10)...); err != nil {
		return err
	}
	if err := expect(messages, 1000, 1010); err != nil {
		return err
	}
	return errors.Join(pub.Close(), sub.Close())
}

// hoard opens files until only so many descriptors are left.
func hoard(left int) (held []*os.File, err error) {
	for {
		f, err := os.Open("/dev/null")
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		if err != nil {
			return nil, err
		}
		held = append(held, f)
	}
	for range left {
		_ = held[len(held)-1].Close()
		held = held[:len(held)-1]
	}
	return held, nil
}
