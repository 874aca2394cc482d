package buffstreams

import (
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

const (
	// patience is how long the pump waits for the message that it emitted first before that gets a tender.
	patience = time.Millisecond
	// rotation is how long a message is offered to a reader that does not take it while another member of the group waits.
	rotation = 50 * time.Millisecond
	// offered is how many messages are in the channel at most while the group has other members, who could have them.
	offered = 16
	// stocked is how many messages are taken at a time while the group has no other member.
	stocked = 16
	// settled is how many acks are told at a time while so many messages wait that nobody waits for the acks.
	settled = 32
)

// pump emits a subscription's messages and collects their acks, in the order of emission and in one goroutine: what a
// prompt handler acks costs no other. Whatever is not prompt, or nacked, gets a tender of its own and holds up nobody.
//
// The channel has room for MaxInFlight messages, so that emitting never blocks.
type pump struct {
	*subscription
	flying   []flight            // emitted and without a tender, oldest first; the last of them may still be in the channel
	done     []dispatch.Delivery // acked, and to be settled
	prompt   bool                // at once: before anything else is emitted
	busy     bool                // more messages wait than anybody who waits for acks could have sent
	stock    []dispatch.Delivery // taken: only while the group has no other member
	store    [stocked]dispatch.Delivery
	ahead    flight // ready to be emitted before what is in stock, if hasAhead
	hasAhead bool

	timer    *time.Timer   // of the patience with flying[0]
	armed    bool          // it runs
	wait     time.Duration // for which it runs
	over     atomic.Bool   // it has run down
	progress bool          // something was acked since it was armed
	passed   bool          // messages went to others, who may not have taken them yet: it is not this member's turn
}

// run ends when the subscription closes.
func (p *pump) run() {
	p.timer = time.AfterFunc(time.Hour, func() { p.over.Store(true); p.notify() })
	defer p.timer.Stop()
	for !p.ends() {
		p.collect()
		p.fill()
		p.rest()
	}
	p.end()
}

func (p *pump) ends() bool {
	return isClosed(p.closing) || isClosed(p.asked) // close is on its way
}

// isClosed is a select of one channel, which takes no lock.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// collect settles what was acked, up to the first message that was not.
func (p *pump) collect() {
	n := 0
	for n < len(p.flying) && p.land(p.flying[n]) {
		n++
	}
	p.drop(n)
}

// land takes note of a message whose handler has answered; otherwise it returns false.
func (p *pump) land(f flight) bool {
	switch {
	case f.acked():
		p.done = append(p.done, f.ctx.end())
		p.progress = true
		if p.wait > patience { // whoever reads the channel is back
			p.wait, p.armed = patience, false
		}
	case f.nacked():
		p.tend(f)
	default:
		return false
	}
	return true
}

// drop forgets the first n messages, which have landed or got a tender.
func (p *pump) drop(n int) {
	if n == 0 {
		return
	}
	left := copy(p.flying, p.flying[n:])
	clear(p.flying[left:])
	p.flying = p.flying[:left]
	if p.prompt || len(p.done) >= settled {
		p.settle()
	}
}

// settle tells of what was acked.
func (p *pump) settle() {
	if len(p.done) == 0 {
		return
	}
	p.member.SettleAll(p.done)
	clear(p.done)
	p.done = p.done[:0]
}

// fill emits what there is room for, and prepares the next message while the handlers work.
func (p *pump) fill() {
	for {
		f, ok := p.repeated()
		if !ok && p.room() {
			f, ok = p.next()
		}
		if !ok {
			break
		}
		p.out <- f.msg
		p.flying = append(p.flying, f)
	}
	if !p.member.Alone() {
		p.giveBack()
	} else if !p.hasAhead {
		p.ahead, p.hasAhead = p.take(false)
	}
	if !p.busy {
		p.settle()
	}
}

// next is the message to emit next. ok is false while there is none.
func (p *pump) next() (flight, bool) {
	if p.hasAhead {
		p.hasAhead = false
		return p.ahead, true
	}
	return p.take(true)
}

// giveBack returns the messages that were taken and not emitted.
func (p *pump) giveBack() {
	if p.hasAhead {
		p.hasAhead = false
		p.member.Return(p.ahead.ctx.end())
	}
	for _, d := range p.stock {
		p.member.Return(d)
	}
	clear(p.store[:])
	p.stock, p.busy = nil, false
}

func (p *pump) room() bool {
	return !p.passed && len(p.flying)+int(p.tended.Load()) < cap(p.out) && (len(p.out) < offered || p.member.Alone())
}

// take takes the next message of the group whose turn it is. ok is false while there is none: with idle, the pump is then told
// when there is one.
func (p *pump) take(idle bool) (f flight, ok bool) {
	for {
		d, msg, found, its, err := p.draw(idle)
		if !found {
			return f, false
		}
		if !its {
			continue
		}
		if f, ok = p.prepare(d, msg, err); ok {
			return f, true
		}
	}
}

// draw takes the group's next message, if one is found, and tells whether its key lets it be handled now.
func (p *pump) draw(idle bool) (d dispatch.Delivery, msg *message.Message, found, its bool, err error) {
	key := p.subscriber.cfg.Key
	if key == nil {
		if d, found = p.pick(idle); found {
			msg, err = p.unmarshal(d)
		}
		return d, msg, found, true, err
	}
	turn := p.member.Turn()
	turn.Lock()
	defer turn.Unlock()
	if d, found = p.pickOne(idle); !found {
		return d, nil, false, false, nil
	}
	msg, err = p.unmarshal(d)
	if err != nil && !p.subscriber.cfg.EmitUndecodable {
		return d, msg, true, true, err
	}
	its = p.member.Claim(&d, key(msg))
	return d, msg, true, its, err
}

// pickOne returns the group's next message.
func (p *pump) pickOne(idle bool) (d dispatch.Delivery, found bool) {
	ds, _ := p.member.TakeUpTo(p.store[:0], 1, idle)
	if len(ds) == 0 {
		return d, false
	}
	return ds[0], true
}

// pick returns the group's next message, and takes several while the group has no other member.
func (p *pump) pick(idle bool) (d dispatch.Delivery, found bool) {
	if len(p.stock) == 0 {
		n := 1
		if p.member.Alone() {
			n = stocked
		}
		if p.stock, p.busy = p.member.TakeUpTo(p.store[:0], n, idle); len(p.stock) == 0 {
			return d, false
		}
	}
	d = p.stock[0]
	p.stock[0] = dispatch.Delivery{}
	p.stock = p.stock[1:]
	return d, true
}

// rest waits until something has happened.
func (p *pump) rest() {
	var acked, nacked <-chan struct{}
	if len(p.flying) > 0 {
		acked, nacked = p.flying[0].msg.Acked(), p.flying[0].msg.Nacked()
		p.arm()
	}
	select {
	case <-acked:
	case <-nacked:
	case <-p.wake:
		p.passed = false
	}
	if p.over.CompareAndSwap(true, false) {
		p.armed = false
		p.lose()
	}
}

// hopeless tells that nobody could do anything about a message that is not acked.
func (p *pump) hopeless() bool {
	return cap(p.out) == 1 && p.subscriber.cfg.AckWaitTimeout == 0 && p.member.Alone()
}

// arm starts the timer, unless there would be nothing to do when it has run down.
func (p *pump) arm() {
	if p.armed || len(p.done) == 0 && p.hopeless() {
		return
	}
	p.armed, p.progress = true, false
	p.wait = max(p.wait, patience)
	p.timer.Reset(p.wait)
}

// lose ends the patience: messages that a handler has get tenders. Those that nobody takes go back to the group when
// another member waits for them.
func (p *pump) lose() {
	p.settle()
	taken := len(p.flying) - len(p.out)
	switch {
	case p.hopeless():
	case p.progress:
		p.wait = patience
	case taken > 0:
		p.wait = patience
		for _, f := range p.flying[:taken] {
			if !p.land(f) {
				p.tend(f)
			}
		}
		p.drop(taken)
	case p.wait < rotation:
		p.wait = min(8*p.wait, rotation)
	case p.member.Crowded():
		p.member.Pass(p.retract()...)
		p.passed = true
	}
}

// retract takes the messages out of the channel again that nobody has taken.
func (p *pump) retract() (back []dispatch.Delivery) {
	kept := p.flying[:0]
	var last *message.Message
	for _, f := range p.flying {
		if last == nil {
			select {
			case last = <-p.out:
			default:
			}
		}
		if f.msg != last { // a handler has it
			kept = append(kept, f)
			continue
		}
		last = nil
		back = append(back, f.ctx.end())
	}
	clear(p.flying[len(kept):])
	p.flying = kept
	return back
}

// end gives back what no handler has, and the rest to tenders.
func (p *pump) end() {
	p.giveBack()
	for _, d := range p.retract() {
		p.member.Return(d)
	}
	for _, f := range p.flying {
		if !p.land(f) {
			p.tend(f)
		}
	}
	p.drop(len(p.flying))
	p.settle()
	for _, d := range p.endRepeats() {
		p.member.Return(d)
	}
}
