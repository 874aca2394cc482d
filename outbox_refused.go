package buffstreams

import (
	"errors"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// maxRefused is how many refused messages of a stream wait for OnFailure before no more of it is read.
const maxRefused = 1000

// refusedMessages are the messages of a stream that the peer does not take, and that OnFailure has not been told of
// yet. The outbox keeps them.
type refusedMessages struct {
	mu      sync.Mutex // guards the fields below
	seqs    map[uint64]struct{}
	room    chan struct{}         // closed when there are fewer; nil while no caller waits
	fetched *sender.FetchedStream // of the present attempt
}

// begin notes a new attempt at the stream, which comes before anything is announced to it.
func (m *refusedMessages) begin(fetched *sender.FetchedStream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched = fetched
}

// add notes a message. It returns false if it was there.
func (m *refusedMessages) add(seq uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, there := m.seqs[seq]
	m.seqs[seq] = struct{}{}
	return !there
}

// confirm takes out a message that has left the outbox. The present attempt need not be the one that had it refused.
func (m *refusedMessages) confirm(seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched.ConfirmRefused(seq)
	delete(m.seqs, seq)
	if m.room != nil {
		close(m.room)
		m.room = nil
	}
}

// full returns a channel that is closed when there are fewer messages, or nil while there are not too many.
func (m *refusedMessages) full() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seqs) < maxRefused {
		return nil
	}
	if m.room == nil {
		m.room = make(chan struct{})
	}
	return m.room
}

// awaitRefused waits while too many refused messages wait for OnFailure.
func (r *streamRelay) awaitRefused() error {
	for room := r.refused.full(); room != nil; room = r.refused.full() {
		fields := r.fields()
		fields["count"] = maxRefused
		r.logger.Error("Too many messages of an outbox were refused and OnFailure has not taken them: the topic waits",
			ErrUndelivered, fields)
		select {
		case <-room:
		case <-r.attempt.Done():
			return r.attempt.Err()
		}
	}
	return nil
}

// onRefused hands a message that the peer will not take to OnFailure. It is kept until that has returned.
func (r *streamRelay) onRefused(seq uint64, reason *PeerError) {
	if seq == 0 { // the whole stream is refused: feed ends with the same error
		return
	}
	if !r.refused.add(seq) { // an earlier attempt at the stream had it refused
		return
	}
	r.manager.hooks.Rejected(hooks.Rejected{Address: r.key.Destination, Topic: r.key.Topic, Err: reason})
	fields := r.fields()
	fields["sequence"] = seq
	failures := r.users.failuresOf(r.key)
	switch {
	case failures != nil:
		r.logger.Error("Message refused by the peer", reason, fields)
	case errors.Is(reason, ErrTopicGone):
		r.logger.Error("Message dropped: its topic is gone, and there is no OnFailure to take it", reason, fields)
	default:
		r.logger.Error("Message refused by the peer; the outbox keeps it, as there is no OnFailure to take it", reason, fields)
		return
	}
	r.tell(failures, seq, reason)
}

// tell has OnFailure called for a message, if there is one. The message is settled then.
func (r *streamRelay) tell(failures *failureQueue, seq uint64, reason error) {
	told := func() {
		if r.settle(store.Range{First: seq, Last: seq}) {
			r.refused.confirm(seq)
		}
	}
	if failures == nil {
		told()
		return
	}
	failures.addStored(failure{
		topic: r.key.Topic, err: reason,
		load: func() ([]byte, bool, error) { return r.load(seq) },
		told: told,
	})
}

// load returns one message of the outbox. there is false if it has left that.
func (r *streamRelay) load(seq uint64) (message []byte, there bool, err error) {
	batch, err := r.read(seq, 1)
	if err != nil || batch.First != seq || len(batch.Messages) == 0 {
		return nil, false, err
	}
	return batch.Messages[0], true, nil
}

// refuseAll hands all that is pending to OnFailure, or drops it where there is none, as the topic is gone, and waits
// before the next attempt until more is there. If nothing comes the stream ends. It returns false if the outbox has
// failed.
func (r *streamRelay) refuseAll(s store.Stream, reason error) bool {
	failures := r.users.failuresOf(r.key)
	if s.Pending > 0 {
		fields := r.fields()
		fields["count"], fields["to OnFailure"] = s.Pending, failures != nil
		r.logger.Error("The topic is gone: what an outbox holds for it is dropped", reason, fields)
	}
	next := s.First
	for {
		if r.awaitRefused() != nil {
			return true
		}
		batch, err := r.read(next, readBytes)
		if err != nil {
			r.pause(err, retryPause)
			return true
		}
		next = batch.Next()
		if len(batch.Messages) == 0 {
			break
		}
		for i := range batch.Messages {
			if seq := batch.First + uint64(i); r.refused.add(seq) {
				r.tell(failures, seq, reason)
			}
		}
	}
	ready, err := r.outbox.Readable(r.key, next)
	if err != nil {
		return errors.Is(err, store.ErrClosed)
	}
	select {
	case <-ready:
		return true
	case <-time.After(retryPause):
		r.forget(r.ctx)
	case <-r.ctx.Done():
		r.forget(r.closing)
	}
	return true
}
