//go:build linux

package resources

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestDisk_Full: an outbox on a small disk that fills up, in a mount namespace of the child's own.
func TestDisk_Full(t *testing.T) {
	cmd := child(t, "disk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if errors.Is(err, syscall.EPERM) || cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == cannotMount {
		t.Skip("a file system of a few MiB cannot be mounted here")
	}
	require.NoError(t, err)
}

// cannotMount is the exit code of a child that may not.
const cannotMount = 77

const diskSize, ballastSize = 8 << 20, 5 << 20 // bytes

func withoutDisk(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)); err != nil {
		tell("%v", err)
		os.Exit(cannotMount)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, ballastSize), 0o600); err != nil {
		return err
	}
	cfg := outbox.Config{Dir: filepath.Join(dir, "outbox"), SegmentBytes: 64 << 10, CacheBytes: -1}
	sub, topic, messages, err := subscribe(buffstreams.ManagerConfig{Acked: quick()})
	if err != nil {
		return err
	}
	away := "127.0.0.1:1/numbers" // nobody is there, so that nothing is removed
	full, err := fill(cfg, away)
	if err != nil {
		return err
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	return errors.Join(goOn(cfg, full, away, topic, messages), sub.Close())
}

// filled is how far a publisher came before the disk was full.
type filled struct{ confirmed, unknown int }

const perCall = 10

// fill publishes until the disk is full, and sees that the error says so and which messages it is about.
func fill(cfg outbox.Config, topic string) (f filled, err error) {
	ob, err := outbox.Open(cfg)
	if err != nil {
		return f, err
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: ob}, nil)
	if err != nil {
		return f, err
	}
	for err == nil {
		if err = pub.Publish(topic, numbered(f.confirmed, perCall)...); err == nil {
			f.confirmed += perCall
		}
	}
	var failed *buffstreams.PublishError
	switch {
	case !errors.As(err, &failed) || !errors.Is(err, store.ErrFailed):
		return f, fmt.Errorf("not a failure of the outbox: %w", err)
	case !errors.Is(err, syscall.ENOSPC):
		return f, fmt.Errorf("the error does not say why: %w", err)
	case len(failed.Unknown) != perCall: // nobody can promise that the disk has none of them
		return f, fmt.Errorf("%d messages are said to be unknown, and %d not sent", len(failed.Unknown), len(failed.NotSent))
	}
	f.unknown = len(failed.Unknown)
	tell("%d messages confirmed, then: %v", f.confirmed, err)
	if again := pub.Publish(topic, numbered(f.confirmed, 1)...); !errors.Is(again, store.ErrFailed) {
		return f, fmt.Errorf("an outbox that failed takes messages: %w", again)
	}
	if err := pub.Close(); err != nil {
		return f, err
	}
	_ = ob.Close() // it has failed, and says so again
	return f, nil
}

// goOn opens the outbox anew: what was confirmed is there, in order, and more can be published.
func goOn(cfg outbox.Config, f filled, away, topic string, messages <-chan *message.Message) error {
	ob, err := outbox.Open(cfg)
	if err != nil {
		return err
	}
	stored := 0
	for _, s := range ob.Streams() {
		stored += int(s.Pending)
	}
	if stored < f.confirmed || stored > f.confirmed+f.unknown {
		return fmt.Errorf("%d messages are there; %d were confirmed, and of %d it was unknown", stored, f.confirmed, f.unknown)
	}
	manager := buffstreams.ManagerConfig{Acked: quick(), Dial: toListener(topic)}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: ob, ManagerConfig: manager}, nil)
	if err != nil {
		return err
	}
	if err := pub.Publish(away, numbered(stored, 1000)...); err != nil {
		return err
	}
	if err := expect(messages, 0, stored+1000); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tell("%d messages were there when there was room again, and 1000 more were delivered after them", stored)
	return errors.Join(pub.Drain(ctx), pub.Close(), ob.Close())
}
