package apisim

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// hogAddress is where a peer accepts and never reads.
const hogAddress = "127.0.0.1:7900"

// hog begins to accept and never reads.
func (w *world) hog() {
	l, err := w.net.listen(&process{name: "hog"})("tcp", hogAddress)
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	go func() {
		<-w.tame
		_ = l.Close()
		w.net.cut(hogAddress)
	}()
}

// take does one step.
func (w *world) take(s Step) {
	time.Sleep(s.Wait)
	w.mu.Lock()
	w.step = s.ID
	w.noteLocked("STEP %v", s)
	w.mu.Unlock()
	switch s.Op {
	case opPublish, opFlush, opDrain, opClosePub, opChurn:
		if p := w.publisher(s.A); p != nil {
			w.withPublisher(s, p)
		}
	case opCloseSender, opKillSender, opReviveSender, opCopyBox:
		w.withSender(s, w.senders[s.A%len(w.senders)])
	case opSubscribe, opInitialize, opDropGroup, opCloseSub:
		if x := w.subscriber(s.A); x != nil {
			w.withSubscriber(s, x)
		}
	case opCloseRouter, opCloseReceiver, opKillReceiver, opRevive, opCut, opHole, opRefuse, opLowerLimit, opRoute, opLeave, opCome, opMute:
		w.withReceiver(s, w.receivers[s.A%len(w.receivers)])
	case opCancel:
		if x := w.living(s.A); x != nil {
			w.end(x)
		}
	case opSwap, opCancelKill:
		if x := w.living(s.A); x != nil {
			w.endWith(s, x)
		}
	case opGate:
		w.toggleGate(gateKinds[s.A%len(gateKinds)])
	case opFail:
		w.disturbed = true
		w.mu.Lock()
		kind := failKinds[s.A%len(failKinds)]
		w.failing[kind] = !w.failing[kind]
		w.gibberish = w.gibberish || kind == "unmarshal"
		w.mu.Unlock()
	}
}

func (w *world) withPublisher(s Step, p *publisher) {
	timeout := time.Duration(100+s.C*3) * time.Millisecond
	switch s.Op {
	case opPublish:
		if p.plan.Plain {
			w.publish(p, w.destination(p, s.B), 100, 14000, false)
			return
		}
		w.publish(p, w.destination(p, s.B), s.N, w.size(s.C), false)
	case opFlush:
		go w.flush(p, false, timeout)
	case opDrain:
		go w.flush(p, true, timeout)
	case opClosePub:
		go w.closePublisher(p, s.N)
	case opChurn:
		w.churn(p, s.N)
	}
}

// size is how many bytes of filler a message has.
func (w *world) size(n int) int {
	switch {
	case w.p.Shape.Oversized && n%8 == 0:
		return 90_000 // more than the peer takes as a frame, so that it is not even sent
	case w.p.Shape.Oversized && n%4 == 0:
		return 3000
	case n%10 == 1 || w.p.Shape.Tight && n%2 == 1:
		return 7000
	}
	return n % 64
}

// churn publishes to addresses that come for one message and go.
func (w *world) churn(p *publisher, n int) {
	if p.pub != nil || p.life.boxed() || p.plan.Plain {
		return
	}
	w.mu.Lock()
	first := w.visitors
	w.visitors += n
	w.mu.Unlock()
	go func() {
		for i := range n {
			w.visit(p, fmt.Sprintf("127.0.0.1:%d", 20000+first+i))
		}
	}()
}

// visit has one message handled at an address, and ends what listens there.
func (w *world) visit(p *publisher, address string) {
	sub, handled, err := w.newVisitor(address)
	if err != nil {
		return
	}
	defer func() { _ = sub.Close() }()
	m := message.NewMessage("x", []byte("a visitor's"))
	if w.timed(p.life.proc, "Publish", p.plan.PublishTimeout, func() error { return p.api.Publish(address+"/x", m) }) != nil {
		return
	}
	select {
	case <-handled:
		w.mu.Lock()
		w.churned++
		w.mu.Unlock()
	case <-time.After(p.plan.PublishTimeout):
	}
}

func (w *world) withSender(s Step, to *sender) {
	l := to.life
	alive := l != nil && l.how == ""
	switch {
	case s.Op == opCloseSender && alive:
		go w.closeSender(l, s.N)
	case s.Op == opKillSender && alive:
		w.disturbed = true
		w.killSender(l, s.C%2 == 1)
	case s.Op == opReviveSender && to.plan.With < 0 && l != nil && !l.ended.IsZero():
		w.restoreBox(to)
		w.do(func() { w.startSender(to) })
	case s.Op == opCopyBox && alive:
		w.copyBox(to)
	}
}

// publisher is the nth of those that live.
func (w *world) publisher(n int) *publisher {
	var all []*publisher
	for _, s := range w.senders {
		if s.life != nil && s.life.how == "" {
			for _, p := range s.life.pubs {
				if p.closing.IsZero() {
					all = append(all, p)
				}
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[n%len(all)]
}
