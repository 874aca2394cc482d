package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	Count int
	// Insecure permits plaintext at an address that is not loopback.
	Insecure bool
	Format   Format
	Out      io.Writer
	// Listening is told the address once messages are taken, and Warn what is worth knowing but no error.
	Listening func(address string)
	Warn      io.Writer
}

const (
	// inFlight is how many messages can share one write to the output. They are acked only after it.
	inFlight = 256
	// quiet is how long no message comes before a peer that knows no acks counts as done.
	quiet = 200 * time.Millisecond
	// closeTimeout bounds what happens after the command was asked to end.
	closeTimeout = 5 * time.Second
)

// Subscribe writes messages to Out, and acks each after it was written. It ends when Count is reached, ctx is done, or
// whoever reads Out is gone: then all that was written is acked, and what was not goes back to its publisher.
func Subscribe(ctx context.Context, o SubOptions) error {
	address, err := o.check()
	if err != nil {
		return err
	}
	sub, err := newSubscriber(o)
	if err != nil {
		return err
	}
	r := &receiver{o: o, sub: sub, printer: newPrinter(o.Out, o.Format)}
	err = r.run(ctx, address)
	closeErr := sub.Close()
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
	acked.Insecure = o.Insecure
	cfg := buffstreams.SubscriberConfig{
		ManagerConfig: buffstreams.ManagerConfig{Logger: o.Logger, Acked: acked},
		Wire:          o.Wire, ConsumerGroup: o.Group, MaxInFlight: inFlight,
		NackResendSleep: buffstreams.NoSleep, CloseTimeout: closeTimeout,
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
		err = fmt.Errorf("a message of %d bytes is over the limit of %d", len(m.Payload), l.limit)
	}
	if err != nil {
		_, _ = fmt.Fprintf(l.warn, "buffstreams: refused: %v\n", err) // its publisher is told as well
	}
	return m, err
}

// receiver moves messages from a subscription to the output.
type receiver struct {
	o       SubOptions
	sub     *buffstreams.Subscriber
	printer *printer
	taken   int
}

func (r *receiver) run(ctx context.Context, address Address) error {
	at, err := r.sub.Addr(r.o.Topic)
	if err != nil {
		return explainListen(address, err)
	}
	messages, err := r.sub.Subscribe(context.Background(), r.o.Topic) // Close ends it, so that what is at hand can end
	if err != nil {
		return err
	}
	r.o.Listening(at.String())
	for r.wanting() {
		select {
		case m, ok := <-messages:
			if !ok {
				return buffstreams.ErrSubscriberClosed
			}
			if err := r.take(m, messages); err != nil {
				return err
			}
		case <-ctx.Done():
			return r.drain(messages)
		}
	}
	return nil
}

// explainListen puts errors into the words of this command.
func explainListen(a Address, err error) error {
	switch {
	case errors.Is(err, buffstreams.ErrInsecureAddress):
		return fmt.Errorf("refusing to listen in plaintext at %s, which other machines can reach; use a loopback address, or --insecure", a.Target.Address)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen at %s: the address is in use", a.Target.Address)
	case a.Target.TLS:
		return fmt.Errorf("cannot listen at tls://%s: this command has no certificate to show; use the library for that", a.Target.Address)
	}
	return err
}

func (r *receiver) wanting() bool { return r.o.Count == 0 || r.taken < r.o.Count }

// take writes a message, and those that are there besides, with one flush, and acks them after it.
func (r *receiver) take(m *message.Message, messages <-chan *message.Message) error {
	batch := make([]*message.Message, 0, 8)
	for m != nil {
		batch = append(batch, m)
		r.taken++
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
		m.Ack()
	}
	return nil
}

func nack(batch []*message.Message, err error) error {
	for _, m := range batch {
		m.Nack()
	}
	return err
}

// drain ends the subscription and writes what it still emits.
func (r *receiver) drain(messages <-chan *message.Message) error {
	if r.o.Wire == buffstreams.WireBuffStreams {
		if err := r.drainPlain(messages); err != nil {
			return err
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- r.sub.Close() }() // ends within twice closeTimeout; awaited below
	for m := range messages {
		if !r.wanting() {
			m.Nack()
			continue
		}
		if err := r.take(m, messages); err != nil {
			return errors.Join(err, <-closed)
		}
	}
	return <-closed
}

// drainPlain takes messages until none has come for a while: those of plain peers exist only here once they were read.
func (r *receiver) drainPlain(messages <-chan *message.Message) error {
	end := time.After(closeTimeout)
	for r.wanting() {
		select {
		case m := <-messages:
			if err := r.take(m, messages); err != nil {
				return err
			}
		case <-time.After(quiet):
			return nil
		case <-end:
			return nil
		}
	}
	return nil
}
