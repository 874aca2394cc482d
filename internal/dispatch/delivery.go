package dispatch

import (
	"bytes"
	"time"
)

// Delivery is one message given to a member, which has to Settle, Refuse, Return or Yield it.
type Delivery struct {
	run     *run
	index   int32
	view    bool      // data is a view of the run's memory, to be copied or released
	data    []byte    // the message
	key     *keyQueue // of the key that the delivery holds, or nil
	Attempt int       // earlier deliveries of the message that ended without an ack

	// Redelivered tells that the message was given to a member before: to one that gave it back, or to a group that ended.
	Redelivered bool
}

// Message is the message's bytes, which belong to the delivery: a handler may write to them.
func (d Delivery) Message() []byte { return d.data }

// Origin is where the message came from, and its sequence there.
func (d Delivery) Origin() (Source, uint64) { return d.run.source, d.run.first + uint64(d.index) }

// Received is when the message arrived.
func (d Delivery) Received() time.Time { return d.run.at }

// Again reports whether the message is given out once more, as another subscription without a group had not settled it:
// see Topic. It may have been settled.
func (d Delivery) Again() bool { return d.run.repeats() }

// pos is the message's position in the log.
func (d Delivery) pos() uint64 { return d.run.pos + uint64(d.index) }

// own replaces the view of the log's memory by a copy, unless the memory is the delivery's already. It needs no lock.
func (d *Delivery) own() {
	if d.view && !d.run.single() {
		d.data = bytes.Clone(d.data) // unlike with make, no memory is cleared first
		d.run.release()
	}
	d.view = false
}

// drop releases the view of the log's memory without a copy.
func (d *Delivery) drop() {
	if d.view {
		d.view, d.data = false, nil
		d.run.release()
	}
}

// settle ends the delivery for its group. last reports whether every group has settled the message now. The caller must
// hold Topic.mu if the run is shared.
func (d Delivery) settle(refusal *Refusal, size func(n int) int) (s settledRange, last bool) {
	refusal, last = d.run.settle(int(d.index), refusal)
	return settledRange{run: d.run, index: int(d.index), count: 1, bytes: size(len(d.data)), refusal: refusal}, last
}
