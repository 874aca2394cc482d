package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
)

// HeaderBytes is the least size of a message that a Ledger can account for.
const HeaderBytes = 12

// Ledger is the account of the messages of one turn: who sent which, and which arrived. Each sender numbers its
// messages from 0 on, and they must arrive in that order, whole, once, and all of them.
type Ledger struct {
	size   int
	filler []byte
	sent   []sender

	mu      sync.Mutex
	arrived []uint64 // by sender, the number that comes next
	account Account
}

// sender is written by one goroutine, hence the padding to a cache line.
type sender struct {
	confirmed uint64
	_         [56]byte
}

// NewLedger makes the account of a number of senders, with messages of size bytes, HeaderBytes at least.
func NewLedger(senders, size int) *Ledger {
	l := &Ledger{size: max(size, HeaderBytes), sent: make([]sender, senders), arrived: make([]uint64, senders)}
	l.filler = make([]byte, l.size-HeaderBytes)
	for i := range l.filler {
		l.filler[i] = byte(i * 131)
	}
	return l
}

// Senders is how many there are.
func (l *Ledger) Senders() int { return len(l.sent) }

// Message appends the next message of a sender to dst. Until Confirm it stays the next. Each sender is one goroutine.
func (l *Ledger) Message(dst []byte, sender int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(sender))
	dst = binary.BigEndian.AppendUint64(dst, l.sent[sender].confirmed)
	return append(dst, l.filler...)
}

// Confirm says that the next n messages of a sender must arrive.
func (l *Ledger) Confirm(sender int, n uint64) { l.sent[sender].confirmed += n }

// Arrive enters a message. It may be called from several goroutines, but then only with messages of different senders,
// since order counts.
func (l *Ledger) Arrive(message []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(message) != l.size || !bytes.Equal(message[HeaderBytes:], l.filler) {
		l.account.Damaged++
		return
	}
	from, n := binary.BigEndian.Uint32(message), binary.BigEndian.Uint64(message[4:])
	switch {
	case int(from) >= len(l.arrived):
		l.account.Damaged++
	case n < l.arrived[from]:
		l.account.Repeated++
	default:
		l.account.Arrived++
		l.arrived[from] = n + 1
	}
}

// Account sums up. It must not be called while messages are sent.
func (l *Ledger) Account() Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account
	for i := range l.sent {
		a.Confirmed += int(l.sent[i].confirmed)
		if over := int(l.arrived[i]) - int(l.sent[i].confirmed); over > 0 {
			a.Unconfirmed += over
		}
	}
	return a
}

// Account says what became of the messages of a turn.
type Account struct {
	Confirmed   int // must have arrived
	Arrived     int // did, whole and in order
	Repeated    int // came again, or behind a later one
	Damaged     int // are not what was sent
	Unconfirmed int // nobody confirmed
}

// Balanced reports whether all that was confirmed arrived, and nothing else.
func (a Account) Balanced() bool {
	return a.Confirmed > 0 && a.Arrived == a.Confirmed && a.Repeated == 0 && a.Damaged == 0 && a.Unconfirmed == 0
}

// Check returns an *AccountError unless the account is balanced.
func (a Account) Check() error {
	if a.Balanced() {
		return nil
	}
	return &AccountError{Account: a}
}

// AccountError means that a turn did not deliver what it confirmed, so that its speed says nothing.
type AccountError struct{ Account Account }

func (e *AccountError) Error() string {
	a := e.Account
	return fmt.Sprintf("measure: of %d confirmed messages %d arrived; %d repeated or out of order, %d damaged, %d never confirmed",
		a.Confirmed, a.Arrived, a.Repeated, a.Damaged, a.Unconfirmed)
}
