package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// SubOptions say what to receive.
type SubOptions struct {
	Options
	// Group is the consumer group; empty means all messages that arrive while the command runs.
	Group string
	// Count is how many messages to take; 0 means no end.
	Count  int
	Format Format
	// Timestamp adds the time of arrival, and Headers UUID and metadata where the format has them not.
	Timestamp, Headers bool
	// Dump is a directory for the messages, which are not written to Out then.
	Dump string
	// Nack gives every message back after it was written: it comes again.
	Nack bool
	Out  io.Writer
	// Listening is told the address once messages are taken, and Warn what is worth knowing but no error.
	Listening func(address string)
	Warn      io.Writer
}

const (
	// inFlight is how many messages can share one write to the output. They are acked only after it.
	inFlight = 256
	// quietLook is the time between two looks for messages of peers that know no acks, and quietLooks how many of them
	// in a row find none new before such peers count as done. One look that is late says nothing: the whole process can
	// have stood still.
	quietLook, quietLooks = 50 * time.Millisecond, 4
	// closeTimeout bounds what happens after the command was asked to end.
	closeTimeout = 5 * time.Second
	// nackPause is how soon what is given back comes again.
	nackPause = time.Second
	// blockedTimeout is how long a write may still take then.
	blockedTimeout = 500 * time.Millisecond
)

// Subscribe writes messages to Out, and acks each after it was written. It ends when Count is reached, ctx is done, or
// the reader of Out is gone: then all that was written is acked, and what was not goes back to its publisher.
func Subscribe(ctx context.Context, o SubOptions) error {
	if _, err := o.check(); err != nil {
		return err
	}
	sub, err := newSubscriber(o)
	if err != nil {
		return err
	}
	r := &receiver{o: o, sub: sub, printer: newPrinter(o)}
	if o.Dump != "" {
		if r.printer, err = newDump(o.Dump, o.Timestamp); err != nil {
			_ = sub.Close() // it holds nothing
			return err
		}
	}
	messages, err := r.subscribe()
	if err != nil {
		_ = sub.Close() // it holds nothing
		return err
	}
	err, closeErr := r.run(ctx, messages)
	if errors.Is(err, syscall.EPIPE) {
		err = nil // the reader has what it wanted
	}
	if err == nil {
		err = closeErr
	}
	return err
}

func newSubscriber(o SubOptions) (*buffstreams.Subscriber, error) {
	acked := AckedConfig(o.MaxMessageSize)
	if err := o.Access.Server(&acked); err != nil {
		return nil, err
	}
	cfg := buffstreams.SubscriberConfig{
		ManagerConfig: buffstreams.ManagerConfig{Logger: o.Logger, Acked: acked},
		Wire:          o.Wire, ConsumerGroup: o.Group, MaxInFlight: inFlight,
		NackResendSleep: buffstreams.NoSleep, CloseTimeout: closeTimeout,
	}
	if o.Nack {
		cfg.NackResendSleep, cfg.NackResendCap = nackPause, nackPause
	}
	if o.Count > 0 { // all that is wanted was acked before Close: there is nothing to wait for
		cfg.CloseTimeout = time.Millisecond
	}
	if o.Wire == buffstreams.WireBuffStreams {
		cfg.MaxMessageSize = o.MaxMessageSize
	} else {
		cfg.Unmarshaler = limited{limit: o.MaxMessageSize, warn: o.Warn}
	}
	return buffstreams.NewSubscriber(cfg, o.Logger)
}

// limited refuses payloads over the limit; the transport's own limit leaves room for an envelope around them.
type limited struct {
	buffstreams.EnvelopeMarshaler
	limit int
	warn  io.Writer
}

func (l limited) Unmarshal(topic string, data []byte) (*message.Message, error) {
	m, err := l.EnvelopeMarshaler.Unmarshal(topic, data)
	if err == nil && len(m.Payload) > l.limit {
		err = fmt.Errorf("%w: a message of %d bytes is over the limit of %d", buffstreams.ErrLimit, len(m.Payload), l.limit)
	}
	if err != nil {
		_, _ = fmt.Fprintf(l.warn, "buffstreams: refused: %v\n", err) // its publisher is told as well
	}
	return m, err
}

// writer takes messages. Nothing is written for sure before flush has returned nil.
type writer interface {
	print(m *message.Message) error
	flush() error
}

// receiver moves messages from a subscription to the output.
type receiver struct {
	o       SubOptions
	sub     *buffstreams.Subscriber
	printer writer
	taken   atomic.Int64
}

// subscribe begins to listen. Close ends the subscription, and not a context, so that what is at hand can end.
func (r *receiver) subscribe() (<-chan *message.Message, error) {
	at, err := r.sub.Addr(r.o.Topic)
	if err != nil {
		return nil, ExplainListen(r.o.Topic, err)
	}
	messages, err := r.sub.Subscribe(context.Background(), r.o.Topic)
	if err == nil {
		r.o.Listening(at.String())
	}
	return messages, err
}

// errBlocked means that the reader of the output does not read: what was not written goes back to its publishers.
var errBlocked = errors.New("the output is blocked: what was not written stays with its publishers")

// run writes messages until there are enough or ctx is done, and closes the subscriber. Its publishers hear of an
// interrupt at once, also while the output is blocked: then run ends without the write.
func (r *receiver) run(ctx context.Context, messages <-chan *message.Message) (err, closeErr error) {
	closed, written := make(chan error, 1), make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { closed <- r.end() })
	go func() { written <- r.write(ctx, messages) }() // ends with the subscription; a blocked write ends with the process
	select {
	case err = <-written:
		if stop() {
			return err, r.sub.Close()
		}
		return err, <-closed
	case closeErr = <-closed:
	}
	select {
	case err = <-written:
	case <-time.After(blockedTimeout):
		err = errBlocked
	}
	return err, closeErr
}

// write writes messages until there are enough or the subscription ends.
func (r *receiver) write(ctx context.Context, messages <-chan *message.Message) error {
	for r.wanting() {
		m, ok := <-messages
		if !ok {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end that was asked for
			}
			return buffstreams.ErrSubscriberClosed
		}
		if err := r.take(m, messages); err != nil {
			return err
		}
	}
	return nil
}

// end closes the subscriber: publishers are told, and what is at hand is still emitted.
func (r *receiver) end() error {
	if r.o.Wire == buffstreams.WireBuffStreams {
		r.drainPlain()
	}
	return r.sub.Close()
}

// ExplainListen puts errors into the words of this command.
func ExplainListen(topic string, err error) error {
	a, parseErr := ParseTopic(topic)
	switch {
	case parseErr != nil:
		return parseErr
	case errors.Is(err, buffstreams.ErrInsecureAddress):
		return fmt.Errorf("refusing to listen in plaintext at %s, which other machines can reach; use a loopback address, tls:// with --tls-cert and --tls-key, or --insecure", a.Target.Address)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen at %s: the address is in use", a.Target.Address)
	case a.Target.TLS && !errors.As(err, new(*net.OpError)): // else a socket was opened, or could not be
		return fmt.Errorf("cannot listen at tls://%s: it needs a certificate to show: --tls-cert and --tls-key", a.Target.Address)
	}
	return err
}

func (r *receiver) wanting() bool { return r.o.Count == 0 || r.taken.Load() < int64(r.o.Count) }

// take writes a message, and those that are there besides, with one flush, and acks them after it.
func (r *receiver) take(m *message.Message, messages <-chan *message.Message) error {
	batch := make([]*message.Message, 0, 8)
	for m != nil {
		batch = append(batch, m)
		r.taken.Add(1)
		if err := r.printer.print(m); err != nil {
			return nack(batch, err)
		}
		m = nil
		if len(batch) < inFlight && r.wanting() {
			select {
			case m = <-messages:
			default:
			}
		}
	}
	if err := r.printer.flush(); err != nil {
		return nack(batch, err)
	}
	for _, m := range batch {
		if r.o.Nack {
			m.Nack()
		} else {
			m.Ack()
		}
	}
	return nil
}

func nack(batch []*message.Message, err error) error {
	for _, m := range batch {
		m.Nack()
	}
	return err
}

// drainPlain waits until no message has come for a while: those of plain peers exist only here once they were read.
func (r *receiver) drainPlain() {
	poll := time.NewTicker(quietLook)
	defer poll.Stop()
	end := time.After(closeTimeout)
	before := r.taken.Load()
	for looks := 0; looks < quietLooks; looks++ {
		select {
		case <-poll.C:
		case <-end:
			return
		}
		if now := r.taken.Load(); now != before {
			before, looks = now, -1
		}
	}
}
