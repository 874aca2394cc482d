package chaos

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// pattern is what messages are filled with, each with its own part of it.
var pattern = func() []byte {
	p := make([]byte, 64<<10)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}()

const header = 12 // bytes: flow and number

// filling is the part of pattern that belongs to a number: short ones, and every thousandth of some 20 KiB.
func filling(n uint64) []byte {
	size := n * 2654435761 % 300
	if n%1000 == 999 {
		size = 20<<10 + n%1000
	}
	from := n % 4096
	return pattern[from : from+size]
}

func encode(flow uint32, n uint64) *message.Message {
	fill := filling(n)
	p := make([]byte, header, header+len(fill))
	binary.BigEndian.PutUint32(p, flow)
	binary.BigEndian.PutUint64(p[4:], n)
	return message.NewMessage(strconv.FormatUint(n, 10), append(p, fill...))
}

// decode refuses what was not published to the flow as it is.
func decode(flow uint32, msg *message.Message) (uint64, error) {
	p := msg.Payload
	if len(p) < header || binary.BigEndian.Uint32(p) != flow {
		return 0, fmt.Errorf("a message of another flow: %.20x", []byte(p))
	}
	n := binary.BigEndian.Uint64(p[4:])
	if msg.UUID != strconv.FormatUint(n, 10) || !bytes.Equal(p[header:], filling(n)) {
		return 0, fmt.Errorf("message %d of flow %d arrived other than it was sent", n, flow)
	}
	return n, nil
}

// account is what the members of one consumer group got of one flow: numbers from 0 on. Its size does not grow with them.
type account struct {
	name    string
	flow    uint32
	ordered bool // emission has an order: the group has one member

	handled    atomic.Uint64 // acked
	nacked     atomic.Uint64
	duplicates atomic.Uint64
	reordered  atomic.Uint64

	mu       sync.Mutex
	low      uint64              // below it, every number was seen
	seen     map[uint64]struct{} // above it
	highest  uint64              // the highest number that was seen, plus one
	owed     map[uint64]bool     // nacked: will come again
	complain func(string)
}

func newAccount(name string, flow uint32, ordered bool, complain func(string)) *account {
	return &account{
		name: name, flow: flow, ordered: ordered, complain: complain,
		seen: map[uint64]struct{}{}, owed: map[uint64]bool{},
	}
}

// see books a delivery, and tells whether it is the message's first.
func (a *account) see(msg *message.Message) (n uint64, first bool, err error) {
	if n, err = decode(a.flow, msg); err != nil {
		return 0, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, before := a.seen[n]; before || n < a.low {
		if !a.owed[n] {
			a.duplicates.Add(1)
			a.complain(fmt.Sprintf("%s: number %d came again", a.name, n))
		}
		delete(a.owed, n)
		return n, false, nil
	}
	if a.ordered && n != a.highest {
		a.reordered.Add(1)
		a.complain(fmt.Sprintf("%s: number %d came where %d was due", a.name, n, a.highest))
	}
	a.highest = max(a.highest, n+1)
	for a.seen[n] = struct{}{}; ; a.low++ {
		if _, ok := a.seen[a.low]; !ok {
			return n, true, nil
		}
		delete(a.seen, a.low)
	}
}

func (a *account) ack(msg *message.Message) {
	msg.Ack()
	a.handled.Add(1)
}

func (a *account) nack(msg *message.Message, n uint64) {
	a.mu.Lock()
	a.owed[n] = true
	a.mu.Unlock()
	a.nacked.Add(1)
	msg.Nack()
}

// missing is how many of the first total numbers were never seen.
func (a *account) missing(total uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return total - min(total, a.low+uint64(len(a.seen)))
}

// tally is the account of many in figures.
type tally struct{ handled, nacked, lost, duplicated, reordered uint64 }

func (s *tally) add(a *account) {
	s.handled += a.handled.Load()
	s.nacked += a.nacked.Load()
	s.duplicated += a.duplicates.Load()
	s.reordered += a.reordered.Load()
}
