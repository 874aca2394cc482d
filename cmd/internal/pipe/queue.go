package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// queue is an open outbox and the publisher that fills and delivers it.
type queue struct {
	o         PubOptions
	box       *outbox.Outbox
	witness   witness
	manager   *buffstreams.Manager
	publisher *buffstreams.Publisher
	whole     context.Context // ends when a part of the outbox turns out to be damaged
	complete  bool            // all input is in the outbox

	mu      sync.Mutex
	refused int
	damaged map[store.Key]*store.CorruptError // the last of each stream
}

// publishStored puts the input into the outbox and delivers it. What was stored stays there whatever happens next, so
// that nothing is waited for after an error of the input, or once ctx is done.
func publishStored(ctx context.Context, o PubOptions, c *composer, source func(context.Context) (*input, error)) error {
	if o.MaxMessageSize > largestStored {
		return fmt.Errorf("--max-message-size %d is over %d, the limit with --outbox", o.MaxMessageSize, largestStored)
	}
	s, err := openQueue(o, true)
	if err != nil {
		return err
	}
	in, err := source(ctx)
	if err != nil {
		return s.close(err)
	}
	filler := &sender{o: o, publisher: s.publisher, composer: c, queue: s}
	if err = filler.sendAll(ctx, in); err == nil {
		err = s.deliver(ctx)
	}
	return s.close(err)
}

// Drain delivers what an earlier process left in the outbox. Of the options it needs no Topic.
func Drain(ctx context.Context, o PubOptions) error {
	s, err := openQueue(o, false)
	if err != nil {
		return err
	}
	return s.close(s.deliver(ctx))
}

// Retry is Drain, but keeps what is refused: it names it, and the outbox has it still.
func Retry(ctx context.Context, o PubOptions) error {
	o.KeepRefused = true
	return Drain(ctx, o)
}

// openQueue begins to deliver what the outbox has.
func openQueue(o PubOptions, create bool) (s *queue, err error) {
	s = &queue{o: o, damaged: map[store.Key]*store.CorruptError{}}
	var hurt context.CancelFunc
	s.whole, hurt = context.WithCancel(context.Background())
	s.witness = newWitness(o.Logger, o.Warn, func(damage *store.CorruptError) {
		s.note(damage)
		hurt()
	})
	cfg := buffstreams.ManagerConfig{Logger: s.witness, Acked: AckedConfig(outbox.MaxAppendBytes)} // whatever was stored
	if err := o.Access.Client(&cfg.Acked); err != nil {
		return nil, err
	}
	if s.box, err = OpenOutbox(o.Outbox, create); err != nil {
		return nil, err
	}
	if s.manager, err = buffstreams.NewManager(cfg); err != nil {
		return nil, errors.Join(err, s.box.Close())
	}
	pubCfg := buffstreams.PublisherConfig{Manager: s.manager, Outbox: s.box, OnFailure: s.refuse}
	if o.KeepRefused {
		pubCfg.OnFailure = nil
	}
	s.publisher, err = buffstreams.NewPublisher(pubCfg, s.witness)
	if err != nil {
		return nil, errors.Join(err, s.manager.Close(), s.box.Close())
	}
	return s, nil
}

func (s *queue) note(damage *store.CorruptError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged[damage.Key] = damage
}

// refuse is called for messages that their subscriber will never take. The outbox does not keep them.
func (s *queue) refuse(topic string, encoded []byte, err error) {
	s.mu.Lock()
	s.refused++
	s.mu.Unlock()
	id := "of unknown id"
	if m, err := (buffstreams.EnvelopeMarshaler{}).Unmarshal(topic, encoded); err == nil && m.UUID != "" {
		id = Printable(m.UUID)
	}
	why := err.Error()
	var refused *buffstreams.PeerError
	if errors.As(err, &refused) {
		why = fmt.Sprintf("%.200q", refused.Reason)
	}
	_, _ = fmt.Fprintf(s.o.Warn, "buffstreams: message %.200s for topic %.200q was refused: %s\n", id, topic, why)
}

// explain says what became of lines that could not be stored.
func (s *queue) explain(batch []line, e *buffstreams.PublishError) error {
	lines := fmt.Sprintf("line %d", batch[0].number)
	if n := len(batch); n > 1 {
		lines = fmt.Sprintf("lines %d to %d", batch[0].number, batch[n-1].number)
	}
	if len(e.Unknown) > 0 {
		return fmt.Errorf("it is unknown whether %s came into the outbox: %w", lines, e.Err)
	}
	return fmt.Errorf("%s did not come into the outbox: %w", lines, e.Err)
}

// deliver waits, after the end of the input, until the outbox is empty, for at most Timeout.
func (s *queue) deliver(ctx context.Context) error {
	s.complete = true
	bounded := ctx
	if s.o.Timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, s.o.Timeout)
		defer cancel()
	}
	until, cancel := context.WithCancel(bounded)
	defer cancel()
	defer context.AfterFunc(s.whole, cancel)()
	err := s.publisher.Drain(until)
	if err != nil && s.whole.Err() != nil {
		err = s.deliverUndamaged(bounded)
	}
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return ErrInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("not everything was delivered within %v", s.o.Timeout)
	}
	return err
}

// damagePatience is how long nothing of a damaged stream may be delivered before its command ends.
const damagePatience = 6 * time.Second

// errDamaged ends a delivery that can deliver nothing more.
var errDamaged = errors.New("the outbox is damaged: the messages that were named are lost, and those behind them are kept")

// deliverUndamaged waits until only messages are left that are lost in the outbox, or follow such. What comes before
// them has to get on.
func (s *queue) deliverUndamaged(ctx context.Context) error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	var before uint64
	since := time.Now()
	for {
		sound, ahead := s.deliverable()
		if ahead != before {
			before, since = ahead, time.Now()
		}
		if !sound && (ahead == 0 || time.Since(since) > damagePatience) {
			return errDamaged
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.box.Err(); err != nil {
			return err
		}
	}
}

// deliverable says whether streams without damage have anything left, and how many sequences lie ahead of damage.
func (s *queue) deliverable() (sound bool, ahead uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stream := range s.box.Streams() {
		switch damage := s.damaged[stream.Key]; {
		case damage == nil:
			sound = sound || stream.Pending > 0
		case stream.First < damage.From:
			ahead += damage.From - stream.First
		}
	}
	return sound, ahead
}

// close ends the delivery and returns err with what it has left.
func (s *queue) close(err error) error {
	failure := s.box.Err()
	closeErr := s.publisher.Close()
	if err != nil && failure == nil {
		left := waiting(s.o.Outbox, s.box.Streams(), s.why)
		if left.Err = err; left.Messages > 0 {
			err = left
		} else if s.complete { // the last message was handled when nobody waited any more
			err = nil
		}
	}
	closeErr = errors.Join(closeErr, s.manager.Close(), s.box.Close())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused > 0 {
		err = errors.Join(err, fmt.Errorf("messages were refused, and are not kept: %d", s.refused))
	}
	if err == nil {
		err = closeErr
	}
	return err
}

// why says what keeps messages from being delivered to a destination, as far as that is known.
func (s *queue) why(destination string) string {
	s.mu.Lock()
	for key := range s.damaged {
		if key.Destination == destination {
			s.mu.Unlock()
			return "damaged"
		}
	}
	s.mu.Unlock()
	address, err := ParseTopic(destination)
	if err != nil {
		return ""
	}
	if s.manager.PeerStatus(destination).Connected {
		return "connected; is somebody subscribed to the topic?"
	}
	switch err := Explain(s.witness.lastError(address.Target.Address)); {
	case err == nil:
		return ""
	case errors.Is(err, io.EOF): // its cause says more
		return err.Error()
	default:
		return cause(err).Error()
	}
}
