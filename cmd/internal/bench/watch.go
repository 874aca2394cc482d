package bench

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// refresh is how often the bar is drawn.
	refresh = 100 * time.Millisecond
	// interval is that of the counts whose spread a report has.
	interval = time.Second
)

// watcher counts what comes in each second, and draws the bar. One goroutine, between begin and stop.
type watcher struct {
	o       *Options
	side    *side
	quit    chan struct{}
	done    chan struct{}
	running bool
	seconds []float64
	bar     *progressbar.ProgressBar // nil without one
}

func (o *Options) watch(s *side) *watcher {
	return &watcher{o: o, side: s, quit: make(chan struct{}), done: make(chan struct{})}
}

func (w *watcher) begin() {
	w.running = true
	if w.o.Bar != nil {
		most := int64(w.o.Count)
		if most == 0 {
			most = -1 // how far it got is a matter of time
		}
		w.bar = progressbar.NewOptions64(most, progressbar.OptionSetWriter(w.o.Bar), progressbar.OptionShowCount(),
			progressbar.OptionSetDescription(w.side.name), progressbar.OptionFullWidth())
	}
	go w.run() // ends when stop closes quit
}

func (w *watcher) run() {
	defer close(w.done)
	draw, tick := time.NewTicker(refresh), time.NewTicker(interval)
	defer draw.Stop()
	defer tick.Stop()
	begin, before := time.Now(), w.side.total.Load()
	last := begin
	for {
		select {
		case <-w.quit:
			return
		case now := <-tick.C:
			total := w.side.total.Load()
			w.seconds = append(w.seconds, float64(total-before)/now.Sub(last).Seconds())
			before, last = total, now
		case <-draw.C:
			w.draw(time.Since(begin).Seconds())
		}
	}
}

// draw shows what is known. That it fails on a broken terminal is no reason to stop the run.
func (w *watcher) draw(elapsed float64) {
	if w.bar == nil {
		return
	}
	w.bar.Describe(fmt.Sprintf("%s %7.0f messages/s %6.1f MB/s", w.side.name,
		float64(w.side.total.Load())/elapsed, float64(w.side.bytes.Load())/1e6/elapsed))
	_ = w.bar.Set64(w.side.total.Load())
}

// stop takes the bar away, and returns the rates of the whole seconds.
func (w *watcher) stop() []float64 {
	if !w.running {
		return nil
	}
	close(w.quit)
	<-w.done
	if w.bar != nil {
		_ = w.bar.Clear()
	}
	return w.seconds
}
