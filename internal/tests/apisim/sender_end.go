package apisim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing/synctest"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// endLanes ends the lanes' goroutines when what is queued is done.
func (w *world) endLanes(p *publisher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range p.lanes {
		if l.queue != nil {
			close(l.queue)
			l.queue = nil
		}
	}
}

// flush calls Flush or Drain.
func (w *world) flush(p *publisher, drain bool, timeout time.Duration) {
	name, f := "Flush", p.api.Flush
	if drain {
		name, f = "Drain", p.api.Drain
	}
	w.mu.Lock()
	var before []*msg
	for _, m := range w.messages {
		if m.from == p && (m.outcome == okay || m.outcome == unknown) && !p.plan.Plain {
			before = append(before, m)
		}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := w.timed(p.life.proc, name, timeout, func() error { return f(ctx) })
	w.note("%s %s: %v", p.name(), name, err)
	if err == nil && !p.life.proc.dead.Load() {
		time.Sleep(10 * time.Millisecond) // OnFailure has a goroutine of its own
		w.checkFlushed(p, name, before)
	}
}

// closePublisher closes one publisher; n calls side by side.
func (w *world) closePublisher(p *publisher, n int) {
	if p.pub != nil {
		return // it ends with its PubSub
	}
	w.mu.Lock()
	first := p.closing.IsZero()
	if first {
		p.closing = time.Now()
	}
	w.mu.Unlock()
	if !first {
		return
	}
	bound := p.plan.CloseTimeout + w.marshaling(40)
	err := w.closeAll(p.life.proc, p.call("Publisher.Close"), n, bound, p.api.Close)
	w.mu.Lock()
	p.closed, p.closeErr = time.Now(), err
	p.life.counted += undelivered(err)
	w.noteLocked("%s closed: %v", p.name(), err)
	w.mu.Unlock()
	w.endLanes(p)
}

// closeSender closes a process's publishers, then its Manager and outbox.
func (w *world) closeSender(l *senderLife, n int) {
	if l.within != nil || !w.beginEnd(l, "closed") {
		return
	}
	for _, p := range l.pubs {
		w.closePublisher(p, n)
	}
	if l.manager != nil {
		err := w.closeAll(l.proc, "Manager.Close", n, w.managerCloseTimeout(), l.manager.Close)
		w.mu.Lock()
		l.counted += undelivered(err)
		w.noteLocked("Manager of %s closed: %v", l.proc.name, err)
		w.mu.Unlock()
	}
	if l.box != nil {
		if err := w.timed(l.proc, "Outbox.Close", 5*time.Second, l.box.Close); err != nil {
			w.note("outbox of %s closed: %v", l.proc.name, err)
		}
	}
	w.mu.Lock()
	l.ended = time.Now()
	w.mu.Unlock()
}

// managerCloseTimeout is what Manager.Close has.
func (w *world) managerCloseTimeout() time.Duration {
	return pick(w.random(55), time.Second, 5*time.Second)
}

// beginEnd claims the end of a life.
func (w *world) beginEnd(l *senderLife, how string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.how != "" {
		return false
	}
	l.how, l.closing = how, time.Now()
	return true
}

// killSender ends a process as kill -9 does: its files are as they were at that moment.
func (w *world) killSender(l *senderLife, silent bool) {
	if l.within != nil || !w.beginEnd(l, "killed") {
		return
	}
	s := l.of
	if l.box != nil {
		synctest.Wait() // until nothing is written
		s.boxes++
		dir := filepath.Join(w.dir, fmt.Sprintf("s%d-%d", s.n, s.boxes))
		if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
			panic(err)
		}
		s.dir = dir
	}
	back := w.unreceived(l)
	w.net.kill(l.proc, silent)
	w.mu.Lock()
	l.ended = time.Now()
	w.noteLocked("sender %s is killed", l.proc.name)
	for _, m := range w.messages {
		if m.from.life == l && m.outcome == pending {
			m.outcome = unknown
		}
	}
	l.back = back
	w.mu.Unlock()
	go w.buryPublishers(l) // what is left of it does not matter, but must go
}

// unreceived is the number of messages that no receiver is known to hold, of a process without an outbox in a program
// with moves.
func (w *world) unreceived(l *senderLife) (n int) {
	if w.routes == nil || l.boxed() {
		return 0
	}
	count := func(addresses []buffstreams.AddressStats) {
		for i := range addresses {
			n += addresses[i].Unreceived
		}
	}
	if l.manager != nil {
		count(l.manager.Stats().Addresses)
		return n
	}
	for _, p := range l.pubs {
		if a, ok := p.api.(interface {
			Stats() buffstreams.PublisherStats
		}); ok {
			count(a.Stats().Addresses)
		}
	}
	return n
}

func (w *world) buryPublishers(l *senderLife) {
	for _, p := range l.pubs {
		_ = p.api.Close()
		w.endLanes(p)
	}
	if l.manager != nil {
		_ = l.manager.Close()
	}
	if l.box != nil {
		_ = l.box.Close()
	}
}

// copyBox keeps a copy of an outbox's directory; restoreBox has it take its place.
func (w *world) copyBox(s *sender) {
	if s.life == nil || s.life.box == nil || s.copied != "" {
		return
	}
	synctest.Wait()
	s.boxes++
	s.copied, s.copiedAt = filepath.Join(w.dir, fmt.Sprintf("s%d-copy%d", s.n, s.boxes)), time.Now()
	if err := os.CopyFS(s.copied, os.DirFS(s.dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err)
	}
	w.note("the outbox of s%d is copied", s.n)
}

func (w *world) restoreBox(s *sender) {
	if s.copied == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.dir, s.copied, s.restored = s.copied, "", time.Now()
	w.noteLocked("the outbox of s%d is restored from its copy", s.n)
	for _, m := range w.messages { // the disk is gone with what came after the copy
		if m.from.life.of == s && (m.returned.IsZero() || !m.returned.Before(s.copiedAt)) {
			m.dropped = "its outbox's disk was lost"
		}
	}
}
