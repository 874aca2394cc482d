package pipe

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// PubOptions say what to publish.
type PubOptions struct {
	Options
	Confirm buffstreams.Confirm
	// Outbox is the directory of the outbox that confirms messages; empty means none.
	Outbox string
	// KeepRefused leaves in the Outbox what a subscriber refuses.
	KeepRefused bool
	// Timeout bounds how long a message may take to be confirmed, and the wait at the end for what is not handled yet.
	// With an Outbox it bounds only that wait, and 0 means for ever.
	Timeout time.Duration
	// Wait is how long nobody may listen at the address when the command starts.
	Wait time.Duration
	// Body or File is published as one message, Count times or once, instead of In line by line, of which Count is the
	// most.
	Body  *[]byte
	File  string
	In    io.Reader
	Count int
	// Rate is the most messages per second; 0 means no limit.
	Rate float64
	Compose
	// Receipts, if not nil, gets a line of JSON for each message that was confirmed.
	Receipts io.Writer
	// Warn is told what is worth knowing but no error.
	Warn io.Writer
}

// ErrInterrupted means that the input was not read to its end, because ctx was done. What was read is confirmed.
var ErrInterrupted = errors.New("interrupted")

// Publish sends the input and returns nil when all of it is confirmed. When ctx is done it stops to read, and sees that
// what it has taken is confirmed.
func Publish(ctx context.Context, o PubOptions) error {
	address, err := o.check()
	if err != nil {
		return err
	}
	composer, err := newComposer(o.Compose, o.MaxMessageSize)
	if err != nil {
		return err
	}
	if err := o.Access.Client(&buffstreams.AckedConfig{}); err != nil {
		return err
	}
	source := o.source
	if o.Body != nil || o.File != "" { // what is wrong with it shows before anything is opened
		in, err := o.source(ctx)
		if err != nil {
			return err
		}
		source = func(context.Context) (*input, error) { return in, nil }
	}
	if o.Outbox != "" {
		return publishStored(ctx, o, composer, source)
	}
	conn, err := AwaitListener(ctx, address.Target, o.Wait)
	if err != nil {
		return err
	}
	s, err := newSender(o, address, conn)
	if err != nil {
		return err
	}
	s.composer = composer
	in, err := source(ctx)
	if err != nil {
		return errors.Join(err, s.close())
	}
	sendErr := s.sendAll(ctx, in)
	var settleErr error
	if !s.broken {
		settleErr = s.settle()
	}
	closeErr := s.close()
	if settleErr != nil && (sendErr == nil || errors.Is(sendErr, ErrInterrupted)) {
		return settleErr
	}
	return cmp.Or(s.count(sendErr), closeErr)
}

// sender publishes batches.
type sender struct {
	o         PubOptions
	address   Address
	manager   *buffstreams.Manager
	publisher *buffstreams.Publisher
	composer  *composer
	queue     *queue // nil without an outbox
	broken    bool   // Publish failed: waiting for more would be in vain
	partly    *buffstreams.PublishError
	welcomed  atomic.Bool // a peer has let this side in

	mu       sync.Mutex
	failures int
	failed   error // the first
}

// newSender owns conn, the proof that somebody listens. On the plain wire it becomes the connection that is written to:
// a peer may well take only one. The acked protocol greets when there is something to send, which can be too late for
// it.
func newSender(o PubOptions, address Address, conn net.Conn) (*sender, error) {
	plain := o.Wire == buffstreams.WireBuffStreams
	s := &sender{o: o, address: address}
	cfg := buffstreams.ManagerConfig{Logger: o.Logger, Acked: AckedConfig(o.MaxMessageSize), Hooks: []hooks.Hook{s}}
	if err := o.Access.Client(&cfg.Acked); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if plain {
		cfg.Dial = dialAfter(conn)
	} else {
		cfg.CloseTimeout = time.Second // what is left then was refused, or settle has waited for it
		if err := conn.Close(); err != nil {
			return nil, err
		}
	}
	var err error
	if s.manager, err = buffstreams.NewManager(cfg); err != nil {
		return nil, err
	}
	pubCfg := buffstreams.PublisherConfig{
		Manager: s.manager, Wire: o.Wire, Confirm: o.Confirm, PublishTimeout: o.Timeout,
		CloseTimeout: 100 * time.Millisecond, // settle does the waiting
		OnFailure:    s.fail,
	}
	if plain {
		pubCfg.MaxMessageSize = o.MaxMessageSize
	}
	if s.publisher, err = buffstreams.NewPublisher(pubCfg, o.Logger); err != nil {
		return nil, errors.Join(err, s.manager.Close())
	}
	return s, nil
}

// dialAfter returns conn the first time.
func dialAfter(conn net.Conn) pool.DialFunc {
	var once sync.Once
	return func(ctx context.Context, network, address string) (c net.Conn, err error) {
		once.Do(func() { c = conn })
		if c != nil {
			return c, nil
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}

// fail is called for messages that are lost for good.
func (s *sender) fail(_ string, _ []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures++; s.failed == nil {
		s.failed = err
	}
}

func (s *sender) sendAll(ctx context.Context, in *input) error {
	for {
		batch, ok := in.gather(ctx)
		if !ok {
			break
		}
		if err := s.send(batch); err != nil {
			return err
		}
		if err := s.lost(); err != nil { // more of the same would not fare better
			return err
		}
	}
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return in.err
}

func (s *sender) send(batch []line) error {
	messages := make([]*message.Message, len(batch))
	for i, l := range batch {
		var err error
		if messages[i], err = s.composer.compose(l); err != nil {
			return err
		}
	}
	err := s.publisher.Publish(s.o.Topic, messages...)
	unconfirmed := map[*message.Message]bool{}
	var partly *buffstreams.PublishError
	if errors.As(err, &partly) {
		for _, m := range append(partly.NotSent, partly.Unknown...) {
			unconfirmed[m] = true
		}
		if s.queue != nil {
			err = s.queue.explain(batch, partly)
		} else {
			err = s.explain(partly)
		}
	}
	s.broken = err != nil
	if err != nil && partly == nil { // several errors, or none that says of which messages it is
		return err
	}
	return errors.Join(err, s.receipts(batch, messages, unconfirmed))
}

// receipt is a line of Receipts.
type receipt struct {
	Line int    `json:"line"`
	UUID string `json:"uuid"`
}

func (s *sender) receipts(batch []line, messages []*message.Message, unconfirmed map[*message.Message]bool) error {
	if s.o.Receipts == nil {
		return nil
	}
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for i, m := range messages {
		if unconfirmed[m] {
			continue
		}
		if err := enc.Encode(receipt{batch[i].number, m.UUID}); err != nil {
			return err
		}
	}
	if _, err := s.o.Receipts.Write(lines.Bytes()); err != nil {
		return fmt.Errorf("a receipt cannot be printed: %v", err) //nolint:errorlint // also where its reader has gone, the input is not done
	}
	return nil
}

// OnConnected implements hooks.ConnectedHook.
func (s *sender) OnConnected(hooks.Connected) { s.welcomed.Store(true) }

// explain says in one line why a batch was not confirmed. count adds what became of it.
func (s *sender) explain(e *buffstreams.PublishError) error {
	s.partly = e
	if errors.Is(e.Err, buffstreams.ErrTimeout) {
		why := errors.New("is a subscriber of it running?")
		if timeout := (*buffstreams.TimeoutError)(nil); errors.As(e.Err, &timeout) && timeout.Cause != nil {
			why = Explain(timeout.Cause)
		}
		return fmt.Errorf("no confirmation for topic %q from %s within %v: %w", s.address.Name, s.address.Target.Address, s.o.Timeout, why)
	}
	return fmt.Errorf("publishing to %s failed: %w", s.address.Target.Address, Explain(e.Err))
}

// count adds to an error of explain what became of the messages. That stands only once the sender is closed: until then
// what is in its window goes on being sent.
func (s *sender) count(err error) error {
	switch {
	case err == nil || s.partly == nil:
		return err
	case s.o.Wire == buffstreams.WireAcked && !s.welcomed.Load():
		return fmt.Errorf("%w (nothing was sent)", err)
	}
	return fmt.Errorf("%w (%d not sent, %d unconfirmed)", err, len(s.partly.NotSent), len(s.partly.Unknown))
}

// notLetIn is an ErrUnauthenticated in the words of this command.
type notLetIn struct {
	reason string // as the peer has it
	err    error
}

func (e *notLetIn) Error() string {
	return fmt.Sprintf("the peer does not let this side in: %.200q; check the token (--token-file) and the certificate (--tls-cert)", e.reason)
}

func (e *notLetIn) Unwrap() error { return e.err }

// errPlainToken is an ErrInsecureToken in the words of this command.
var errPlainToken = errors.New("refusing to send the token in plaintext; use a tls:// topic, or --insecure")

// Explain puts what is a matter of flags into the words of this command. Other errors stay as they are.
func Explain(err error) error {
	var refused *buffstreams.PeerError
	var certificate *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.Is(err, buffstreams.ErrUnauthenticated) && errors.As(err, &refused):
		return &notLetIn{refused.Reason, err}
	case errors.Is(err, buffstreams.ErrInsecureToken):
		return errPlainToken
	case errors.As(err, &certificate):
		return fmt.Errorf("%w; --tls-ca names the certificates to verify the peer by", err)
	case errors.As(err, &op) && op.Op == "remote error": // as crypto/tls calls an alert
		return fmt.Errorf("%w; check the certificate (--tls-cert)", err)
	}
	return err
}

// settle waits until nothing depends on this process any more: the sending side is the keeper of what was received but
// not handled yet. Peers of the plain wire tell nothing, so that there it is enough that the kernel has it all.
func (s *sender) settle() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.Timeout)
	defer cancel()
	if err := s.publisher.Flush(ctx); err != nil && s.lost() == nil {
		return fmt.Errorf("not everything reached %s within %v: %w", s.address.Target.Address, s.o.Timeout, err)
	}
	if s.o.Wire == buffstreams.WireAcked {
		if err := s.linger(ctx); err != nil {
			return err
		}
	}
	return s.lost()
}

// linger waits until all is handled. That a connected peer takes longer is for it to deal with: it has the messages.
func (s *sender) linger(ctx context.Context) error {
	status := func() buffstreams.PeerStatus { return s.manager.PeerStatus(s.address.Peer()) }
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for status().Pending > 0 {
		select {
		case <-poll.C:
			continue
		case <-ctx.Done():
		}
		if !status().Connected {
			return fmt.Errorf("%s went away with %d messages that it had received but not handled", s.address.Target.Address, status().Pending)
		}
		_, err := fmt.Fprintf(s.o.Warn, "buffstreams: %d messages were received by %s, but not handled within %v\n",
			status().Pending, s.address.Target.Address, s.o.Timeout)
		return err
	}
	return nil
}

// lost is an error if messages were refused by the peer or given up.
func (s *sender) lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == 0 {
		return nil
	}
	var refused *buffstreams.PeerError
	if errors.As(s.failed, &refused) {
		return fmt.Errorf("%s refused %d messages: %.200q", s.address.Target.Address, s.failures, refused.Reason)
	}
	return fmt.Errorf("%d messages did not reach %s: %w", s.failures, s.address.Target.Address, cause(s.failed))
}

// close ends the connection, on the plain wire after everything was written.
func (s *sender) close() error {
	err := errors.Join(s.publisher.Close(), s.manager.Close())
	if lost := s.lost(); lost != nil {
		return lost
	}
	return err
}
