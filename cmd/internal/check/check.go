// Package check looks at a peer once, and says what it found as monitoring systems of the Nagios family expect it: one
// line with performance data, and a state that is the exit code.
package check

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// State is the exit code.
type State int

// The states.
const (
	OK State = iota
	Warning
	Critical
	Unknown
)

func (s State) String() string {
	switch s {
	case OK:
		return "OK"
	case Warning:
		return "WARNING"
	case Critical:
		return "CRITICAL"
	default:
		return "UNKNOWN"
	}
}

// Result is what a check found.
type Result struct {
	Check string // such as "connect"
	State State
	Text  string
	Perf  []Value
}

// Value is a figure of the performance data.
type Value struct {
	Label          string
	Value          float64
	Unit           string // "s", or nothing for a number
	Warn, Critical float64
}

// Line is the result as one line, in the form "NAME STATE - text | 'label'=value[unit];warn;critical;0".
func (r Result) Line() string {
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c == '|' || c == 0x7f { // what begins the performance data, or another line
			return ' '
		}
		return c
	}, r.Text)
	var line strings.Builder
	fmt.Fprintf(&line, "BUFFSTREAMS %s %s - %s", strings.ToUpper(r.Check), r.State, text)
	for i, v := range r.Perf {
		separator := " "
		if i == 0 {
			separator = " | "
		}
		fmt.Fprintf(&line, "%s'%s'=%s%s;%s;%s;0", separator, strings.ReplaceAll(v.Label, "'", ""), number(v.Value), v.Unit, number(v.Warn), number(v.Critical))
	}
	return line.String()
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// StateError ends the command with the state as its exit code. The line has been written.
type StateError struct{ State State }

func (e *StateError) Error() string { return "the check is " + e.State.String() }

// Run writes the result's line and returns a *StateError unless the state is OK. An error is CRITICAL: what was looked
// for is not there; but UNKNOWN when ctx was done.
func Run(ctx context.Context, w io.Writer, name string, timeout time.Duration, f func(ctx context.Context) (Result, error)) error {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := f(within)
	r.Check = name
	switch {
	case ctx.Err() != nil && err != nil:
		r.State, r.Text = Unknown, "interrupted"
	case err != nil:
		r.State, r.Text = Critical, strings.TrimPrefix(err.Error(), "buffstreams: ")
	}
	if _, err := fmt.Fprintln(w, r.Line()); err != nil {
		return err
	}
	if r.State != OK {
		return &StateError{r.State}
	}
	return nil
}

// above is the state of a value that is bad when it is large.
func above(value, warn, critical float64) State {
	switch {
	case critical > 0 && value >= critical:
		return Critical
	case warn > 0 && value >= warn:
		return Warning
	}
	return OK
}

// Limits are from where on a duration is a warning, or critical; 0 means never.
type Limits struct{ Warn, Critical time.Duration }

func (l Limits) of(d time.Duration) State {
	return above(d.Seconds(), l.Warn.Seconds(), l.Critical.Seconds())
}

func (l Limits) value(label string, d time.Duration) Value {
	return Value{Label: label, Value: d.Seconds(), Unit: "s", Warn: l.Warn.Seconds(), Critical: l.Critical.Seconds()}
}
