package testkit

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"
)

// patience is more than anything that a test waits for takes.
const patience = time.Minute

// Receive returns the next value of a channel, and fails the test if the channel is closed, or nothing comes.
func Receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-from:
		require.True(t, ok, "the channel was closed")
		return v
	case <-time.After(patience):
		require.Fail(t, "nothing comes")
		panic("unreachable")
	}
}

// LogLine is one call of a Log.
type LogLine struct {
	Level, Msg string
	Err        error
	Fields     watermill.LogFields
}

// Log is a watermill.LoggerAdapter that keeps Error and Info lines in a channel, until a test reads them.
type Log struct {
	watermill.NopLogger
	Lines chan LogLine
}

// NewLog returns a Log that holds up to 1,000 lines that were not read; one more blocks its caller.
func NewLog() Log { return Log{Lines: make(chan LogLine, 1000)} }

// Error implements watermill.LoggerAdapter.
func (l Log) Error(msg string, err error, fields watermill.LogFields) {
	l.Lines <- LogLine{"error", msg, err, fields}
}

// Info implements watermill.LoggerAdapter.
func (l Log) Info(msg string, fields watermill.LogFields) {
	l.Lines <- LogLine{"info", msg, nil, fields}
}

// Next returns the next line of a level, and drops lines of other levels before it. It blocks until there is one.
func (l Log) Next(t testing.TB, level string) LogLine {
	t.Helper()
	for {
		if line := Receive(t, l.Lines); line.Level == level {
			return line
		}
	}
}
