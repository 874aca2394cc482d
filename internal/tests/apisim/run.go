package apisim

import (
	"io"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// Run plays a program in the bubble of its caller, and tells what happens to trace, unless that is nil.
func Run(p Program, dir string, trace io.Writer) Result {
	w := newWorld(p, dir, trace)
	before := len(bubble())
	w.build()
	w.built = time.Now()
	for _, s := range p.Steps {
		w.take(s)
	}
	w.finish()
	w.endAllLanes()
	left := w.leftovers(before)
	w.mu.Lock()
	defer w.mu.Unlock()
	return Result{
		Seed: p.Seed, Steps: len(p.Steps), Messages: len(w.messages), Delivered: w.delivered, Violations: w.violations,
		Dirty: left, Millis: time.Since(w.began).Milliseconds(),
	}
}

// build makes everybody.
func (w *world) build() {
	w.hog()
	for i, plan := range w.p.Shape.Receivers {
		r := &receiver{n: i, plan: plan, limit: w.p.Shape.PeerLimit, w: w}
		if plan.Dedupe {
			r.store = &memStore{w: w, states: map[streamID]streamState{}}
		}
		w.receivers = append(w.receivers, r)
	}
	for i, plan := range w.p.Shape.Senders {
		w.senders = append(w.senders, &sender{n: i, plan: plan, dir: w.dir + "/s" + string(rune('0'+i))})
	}
	for _, r := range w.receivers {
		w.do(func() { w.startReceiver(r) })
	}
	if w.p.Shape.Moves.On {
		w.routes = newRouteState(len(w.receivers))
		w.serve()
	}
	for _, s := range w.senders {
		if s.life == nil {
			w.startSender(s)
		}
	}
}

func (w *world) endAllLanes() {
	for _, s := range w.senders {
		if s.life != nil {
			for _, p := range s.life.pubs {
				w.endLanes(p)
			}
		}
	}
}

// leftovers reports whether goroutines are left when everything is closed. Those of the library are violations.
func (w *world) leftovers(before int) bool {
	for range 40 {
		time.Sleep(time.Second)
		if len(bubble()) <= before {
			return false
		}
	}
	for _, stack := range bubble() {
		if f := libraryFrame(stack); f != "" && !strings.Contains(stack, "apisim.(*world)") {
			w.violated(10, "a goroutine is left when everything is closed: "+f, "%.300s", stack)
		}
	}
	return true
}

// bubble returns the stacks of the bubble's goroutines, but for the caller's and its ancestors.
func bubble() (stacks []string) {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for i, s := range strings.Split(string(buf), "\n\n") {
		if i > 0 && strings.Contains(s[:strings.IndexByte(s+"\n", '\n')], "synctest bubble") {
			stacks = append(stacks, s)
		}
	}
	return stacks
}

var framePattern = regexp.MustCompile(`watermill-buffstreams((?:/(?:pool|route|store|storage/\w+|internal/(?:acked/)?\w+))?\.[^\s(]*(?:\([^\s)]*\))?[^\s(]*)\(`)

// libraryFrame is the innermost function of the library on a stack.
func libraryFrame(stack string) string {
	for _, found := range framePattern.FindAllStringSubmatch(stack, -1) {
		if !strings.Contains(found[1], "apisim") && !strings.Contains(found[1], "internal/tests") {
			return strings.TrimPrefix(found[1], "/")
		}
	}
	return ""
}
