// Package progress shows how far a benchmark is.
package progress

import (
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Bar counts steps on a terminal, and does nothing where there is none. It is used by one goroutine.
type Bar struct {
	bar  *progressbar.ProgressBar // nil without a terminal
	busy bool
}

// New makes a bar of so many steps on f.
func New(f *os.File, steps int) *Bar {
	if !term.IsTerminal(int(f.Fd())) {
		return &Bar{}
	}
	return &Bar{bar: progressbar.NewOptions(steps, progressbar.OptionSetWriter(f), progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(true))}
}

// Step ends the step before and begins one. That it cannot be shown is no reason to stop.
func (b *Bar) Step(what string) {
	if b.bar == nil {
		return
	}
	b.bar.Describe(what)
	if b.busy {
		_ = b.bar.Add(1)
	}
	b.busy = true
}

// Done takes the bar away.
func (b *Bar) Done() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
