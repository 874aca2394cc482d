package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// pathKey is the metadata key of a file's name below the source.
const pathKey = "path"

// Files are read by a few goroutines, which publish what they have in batches.
const (
	readers    = 4
	batchFiles = 32
	batchBytes = 1 << 20
)

// PublisherConfig is for the publisher's process.
type PublisherConfig struct {
	Topic, Source  string
	MaxMessageSize int
	// Control ends when the publisher is to stop; it never brings anything.
	Control io.Reader
	// Events gets the reports.
	Events io.Writer
}

// RunPublisher publishes every file and reports of each what became of it. When Control ends it publishes no further
// file and waits for those on their way.
func RunPublisher(ctx context.Context, cfg PublisherConfig) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with Control, at the latest with the process
		_, _ = io.Copy(io.Discard, cfg.Control)
		stop()
	}()
	p := &publisher{cfg: cfg, reporter: newReporter(cfg.Events)}
	err := p.run(ctx)
	if err != nil {
		p.reporter.report(event{Failed: err.Error()})
		return err
	}
	p.reporter.report(event{Done: true})
	return p.reporter.failure()
}

type publisher struct {
	cfg       PublisherConfig
	reporter  *reporter
	publisher *buffstreams.Publisher
}

func (p *publisher) run(ctx context.Context) error {
	files, err := findFiles(p.cfg.Source, func(name string, err error) {
		p.reporter.report(event{Skipped: &refusal{Name: name, Reason: err.Error()}})
	})
	if err != nil {
		return fmt.Errorf("cannot read the source: %w", err)
	}
	found := totals{Files: len(files)}
	for _, f := range files {
		found.Bytes += f.size
	}
	p.reporter.report(event{Found: &found})
	p.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig:  buffstreams.ManagerConfig{Acked: pipe.AckedConfig(p.cfg.MaxMessageSize)},
		PublishTimeout: -1,                         // a slow handler holds us back for as long as it takes; the end of Control ends it
		CloseTimeout:   childGrace - 2*time.Second, // then it says what was not confirmed, before it is killed
		OnFailure:      p.onFailure,
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	// Close bounds what Publish waits for from then on: the peer may be gone with the one who held Control.
	defer context.AfterFunc(ctx, func() { _ = p.publisher.Close() })() // Publish tells of what it could not send
	return errors.Join(p.publishAll(ctx, files), p.publisher.Close())
}

func (p *publisher) onFailure(_ string, encoded []byte, err error) {
	lost := &refusal{Name: "a message", Reason: err.Error()}
	if m, err := (buffstreams.EnvelopeMarshaler{}).Unmarshal("", encoded); err == nil {
		lost.Name = m.Metadata.Get(pathKey)
	}
	p.reporter.report(event{Lost: lost})
}

// publishAll returns when every file was published or refused, ctx is done, or after the first error.
func (p *publisher) publishAll(ctx context.Context, files []file) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() { // ends when all files are taken, or after an error or ctx
			b := &batch{publisher: p}
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(files) {
					break
				}
				if err := b.add(files[i]); err != nil {
					stop(err)
					return
				}
			}
			if err := b.publish(); err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// batch gathers files for one call of Publish. It belongs to one goroutine.
type batch struct {
	publisher *publisher
	messages  []*message.Message
	receipts  []receipt
	size      int64
}

// add reads a file. One that cannot be published is reported; only errors of publishing are returned.
func (b *batch) add(f file) error {
	content, err := f.read(b.publisher.cfg.MaxMessageSize)
	if err != nil {
		var tooLarge *tooLargeError
		b.publisher.reporter.report(event{Refused: &refusal{
			Name: f.name, Reason: err.Error(), TooLarge: errors.As(err, &tooLarge),
		}})
		return nil
	}
	m := message.NewMessage(watermill.NewUUID(), content)
	m.Metadata.Set(pathKey, f.name)
	b.messages = append(b.messages, m)
	b.receipts = append(b.receipts, receipt{ID: m.UUID, Size: int64(len(content)), Sum: digest(f.name, content)})
	if b.size += int64(len(content)); b.size < batchBytes && len(b.messages) < batchFiles {
		return nil
	}
	return b.publish()
}

// publish reports exactly those messages that were confirmed.
func (b *batch) publish() error {
	if len(b.messages) == 0 {
		return nil
	}
	err := b.publisher.publisher.Publish(b.publisher.cfg.Topic, b.messages...)
	confirmed := b.receipts
	var partly *buffstreams.PublishError
	switch {
	case errors.As(err, &partly):
		confirmed = b.without(append(partly.NotSent, partly.Unknown...))
	case err != nil:
		confirmed = nil
	}
	b.publisher.reporter.report(event{Confirmed: confirmed})
	b.messages, b.receipts, b.size = b.messages[:0], nil, 0
	return err
}

func (b *batch) without(messages []*message.Message) (confirmed []receipt) {
	open := map[string]bool{}
	for _, m := range messages {
		open[m.UUID] = true
	}
	for _, r := range b.receipts {
		if !open[r.ID] {
			confirmed = append(confirmed, r)
		}
	}
	return confirmed
}

// digest stands for a file in the books of both sides.
func digest(name string, content []byte) string {
	h := sha256.New()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}
