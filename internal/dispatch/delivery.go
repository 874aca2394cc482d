package dispatch

import (
	"bytes"
	"time"
)

// Delivery is one message given to a member, which has to Settle, Refuse, Return or Yield it. Until then the message is
// there as it arrived, whatever a handler does with the bytes that Message gave it.
type Delivery struct {
	run     *run
	index   int32
	data    []byte    // the message, if it was detached from the run
	key     *keyQueue // of the key that the delivery holds, or nil
	Attempt int       // earlier deliveries of the message that ended without an ack

	// Redelivered tells that the message was given to a member before: to one that gave it back, or to a group that ended.
	Redelivered bool
}

// Message returns the message in memory that is the caller's: a handler may write to it.
func (d *Delivery) Message() []byte {
	return bytes.Clone(d.arrived()) // unlike with make, no memory is cleared first
}

// arrived is the message as it arrived.
func (d *Delivery) arrived() []byte {
	if d.data != nil {
		return d.data
	}
	return d.run.message(int(d.index))
}

// length is that of the message in bytes.
func (d *Delivery) length() int {
	if d.data != nil {
		return len(d.data)
	}
	return d.run.length(int(d.index))
}

// Detach moves the message out of memory that it shares with others. It is for a delivery that may take long: one that
// is stuck must not keep its whole run. It needs no lock.
func (d *Delivery) Detach() {
	if d.data == nil && d.run.count() > 1 {
		d.data = bytes.Clone(d.arrived())
		d.run.release()
	}
}

// Origin is where the message came from, and its sequence there. It may be called while the delivery is detached.
func (d *Delivery) Origin() (Source, uint64) { return d.run.source, d.run.first + uint64(d.index) }

// Received is when the message arrived.
func (d *Delivery) Received() time.Time { return d.run.at }

// Again reports whether the message is given out once more, as another subscription without a group had not settled it:
// see Topic. It may have been settled.
func (d Delivery) Again() bool { return d.run.repeats() }

// pos is the message's position in the log.
func (d *Delivery) pos() uint64 { return d.run.pos + uint64(d.index) }

// settle ends the delivery for its group. last reports whether every group has settled the message now. The caller must
// hold Topic.mu if the run is shared.
func (d Delivery) settle(refusal *Refusal, size func(n int) int) (s settledRange, last bool) {
	n := size(d.length())
	refusal, last = d.run.settle(int(d.index), refusal)
	s = settledRange{run: d.run, index: int(d.index), count: 1, bytes: n, refusal: refusal}
	if d.data == nil {
		d.run.release()
	}
	return s, last
}
