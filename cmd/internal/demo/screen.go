package demo

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// refresh is how often the progress bar is drawn.
const refresh = 100 * time.Millisecond

// screen shows progress and lines without mixing them up. Without a bar it shows lines only.
type screen struct {
	w      io.Writer
	ledger *ledger
	quit   chan struct{}
	wg     sync.WaitGroup
	wanted bool // a bar

	mu  sync.Mutex
	bar *progressbar.ProgressBar // nil before it is known how much there is to do
}

func newScreen(w io.Writer, bar bool, l *ledger) *screen {
	return &screen{w: w, wanted: bar, ledger: l, quit: make(chan struct{})}
}

// start draws until stop.
func (s *screen) start() {
	if !s.wanted {
		return
	}
	s.wg.Go(func() { // ends when quit is closed
		ticker := time.NewTicker(refresh)
		defer ticker.Stop()
		start := time.Now()
		for {
			select {
			case <-ticker.C:
				s.draw(time.Since(start).Seconds())
			case <-s.quit:
				return
			}
		}
	})
}

// draw shows what is known. That it fails on a broken terminal is no reason to stop the run.
func (s *screen) draw(elapsed float64) {
	outcomes, total, bytes := s.ledger.progress()
	if total <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar == nil {
		s.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(s.w), progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth())
	}
	if s.bar.GetMax() != total { // files were refused
		s.bar.ChangeMax(total)
	}
	s.bar.Describe(fmt.Sprintf("%5.0f files/s %5.1f MB/s", float64(outcomes)/elapsed, float64(bytes)/1e6/elapsed))
	_ = s.bar.Set(min(outcomes, total))
}

// printf writes a line.
func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		_ = s.bar.Clear()
	}
	_, _ = fmt.Fprintf(s.w, "buffstreams: "+format+"\n", args...) // there is nowhere else to tell it
}

// stop takes the bar away. It is called once.
func (s *screen) stop() {
	close(s.quit)
	s.wg.Wait()
	if s.bar != nil {
		_ = s.bar.Clear()
	}
}
