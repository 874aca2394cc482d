package measure

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// TallyBytes is the least size of a message that a Tally can account for.
const TallyBytes = 24

// reach is how far a message may overtake another of its sender.
const reach = 1 << 16

// Tally is the account of messages that come by the million a second, that may overtake one another, or that arrive in
// another process. As with a Ledger each sender numbers its messages from 0 on, and each must arrive once and whole.
type Tally struct {
	size      int
	filler    []byte
	slots     []slot
	repeated  atomic.Uint64
	damaged   atomic.Uint64
	overtaken atomic.Uint64
}

// slot is of one sender. The two ends write to different cache lines.
type slot struct {
	sent atomic.Uint64
	_    [56]byte
	low  atomic.Uint64 // all messages below have arrived; written by one goroutine at a time
	mu   sync.Mutex    // of ArriveAny
	// ahead has a bit for each message from low on that has arrived, at its number modulo reach; nil while none has.
	ahead []uint64
	count atomic.Uint64 // of bits set; written as low is
	_     [16]byte
}

// NewTally makes the account of a number of senders, with messages of size bytes, TallyBytes at least.
func NewTally(senders, size int) *Tally {
	t := &Tally{size: max(size, TallyBytes), slots: make([]slot, senders)}
	t.filler = make([]byte, t.size)
	for i := range t.filler {
		t.filler[i] = byte(i * 131)
	}
	return t
}

// Size is that of every message.
func (t *Tally) Size() int { return t.size }

// Fill makes message number n of a sender in a buffer of Size bytes.
func (t *Tally) Fill(message []byte, sender int, n uint64) {
	copy(message, t.filler)
	t.Stamp(message, sender, n)
}

// Stamp is Fill for a buffer that held another message before.
func (t *Tally) Stamp(message []byte, sender int, n uint64) {
	binary.LittleEndian.PutUint32(message, uint32(sender))
	binary.LittleEndian.PutUint64(message[4:], n)
	binary.LittleEndian.PutUint64(message[t.size-8:], ^n)
}

// Send says that the messages of a sender up to number n-1 are about to be sent, and must arrive. Each sender is one
// goroutine.
func (t *Tally) Send(sender int, n uint64) { t.slots[sender].sent.Store(n) }

// SentBy is the number that Send was last called with for a sender.
func (t *Tally) SentBy(sender int) uint64 { return t.slots[sender].sent.Load() }

// Arrive enters a message. Those of one sender must be entered by one goroutine at a time.
func (t *Tally) Arrive(message []byte) {
	from, n, ok := t.read(message)
	if !ok {
		t.damaged.Add(1)
		return
	}
	if s := &t.slots[from]; s.count.Load() == 0 && n == s.low.Load() {
		s.low.Store(n + 1)
	} else {
		t.late(s, n)
	}
}

// ArriveAny is Arrive for messages of a sender that several goroutines enter.
func (t *Tally) ArriveAny(message []byte) {
	if from, _, ok := t.read(message); ok {
		s := &t.slots[from]
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	t.Arrive(message)
}

func (t *Tally) read(message []byte) (from int, n uint64, ok bool) {
	if len(message) != t.size {
		return 0, 0, false
	}
	from, n = int(binary.LittleEndian.Uint32(message)), binary.LittleEndian.Uint64(message[4:])
	return from, n, from < len(t.slots) && binary.LittleEndian.Uint64(message[t.size-8:]) == ^n
}

// late enters a message that is not the next one, or that closes a gap.
func (t *Tally) late(s *slot, n uint64) {
	low := s.low.Load()
	if s.ahead == nil {
		s.ahead = make([]uint64, reach/64)
	}
	word, bit := &s.ahead[n%reach/64], uint64(1)<<(n%64)
	switch {
	case n < low || n-low < reach && *word&bit != 0:
		t.repeated.Add(1)
		return
	case n-low >= reach:
		t.damaged.Add(1)
		return
	case n > low:
		t.overtaken.Add(1)
	}
	*word |= bit
	s.count.Add(1)
	for s.count.Load() > 0 && s.ahead[low%reach/64]&(1<<(low%64)) != 0 {
		s.ahead[low%reach/64] &^= 1 << (low % 64)
		low++
		s.low.Store(low) // one by one, so that Counted is wrong by one of each sender at most
		s.count.Add(^uint64(0))
	}
}

// Sent is how many messages must arrive.
func (t *Tally) Sent() (n uint64) {
	for i := range t.slots {
		n += t.slots[i].sent.Load()
	}
	return n
}

// Arrived is how many messages have arrived with all before them.
func (t *Tally) Arrived() (n uint64) {
	for i := range t.slots {
		n += t.slots[i].low.Load()
	}
	return n
}

// Counted is how many messages have arrived, also those that have overtaken others.
func (t *Tally) Counted() (n uint64) {
	for i := range t.slots {
		n += t.slots[i].low.Load() + t.slots[i].count.Load()
	}
	return n
}

// ArrivedOf is Arrived for one sender.
func (t *Tally) ArrivedOf(sender int) uint64 { return t.slots[sender].low.Load() }

// Arrivals is what the receiving end knows.
type Arrivals struct {
	Arrived   uint64 `json:"arrived"`
	Repeated  uint64 `json:"repeated"`
	Damaged   uint64 `json:"damaged"`
	Overtaken uint64 `json:"overtaken"`
}

// Arrivals may be called at any time.
func (t *Tally) Arrivals() Arrivals {
	return Arrivals{Arrived: t.Arrived(), Repeated: t.repeated.Load(), Damaged: t.damaged.Load(), Overtaken: t.overtaken.Load()}
}

// Check returns an error unless exactly what was sent has arrived, and in order unless that is not asked for.
func (a Arrivals) Check(sent uint64, ordered bool) error {
	if sent > 0 && a.Arrived == sent && a.Repeated == 0 && a.Damaged == 0 && (a.Overtaken == 0 || !ordered) {
		return nil
	}
	return &TallyError{Sent: sent, Arrivals: a, Ordered: ordered}
}

// TallyError means that a turn did not deliver what was sent, so that its speed says nothing.
type TallyError struct {
	Sent     uint64
	Arrivals Arrivals
	Ordered  bool // order was asked for
}

func (e *TallyError) Error() string {
	a := e.Arrivals
	return fmt.Sprintf("measure: of %d messages sent %d arrived without a gap; %d repeated, %d damaged, %d overtaken (order asked for: %t)",
		e.Sent, a.Arrived, a.Repeated, a.Damaged, a.Overtaken, e.Ordered)
}
