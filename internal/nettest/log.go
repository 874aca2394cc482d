package nettest

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"
)

func Receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	v, ok := <-from
	require.True(t, ok, "the channel was closed")
	return v
}

// logLine is what a plainLog kept of one call.
type LogLine struct {
	Level, Msg string
	Err        error
	Fields     watermill.LogFields
}

// plainLog passes every Error and Info on to a channel that must be large enough.
type Log struct {
	watermill.NopLogger
	Lines chan LogLine
}

func NewLog() Log { return Log{Lines: make(chan LogLine, 1000)} }

func (l Log) Error(msg string, err error, fields watermill.LogFields) {
	l.Lines <- LogLine{"error", msg, err, fields}
}

func (l Log) Info(msg string, fields watermill.LogFields) {
	l.Lines <- LogLine{"info", msg, nil, fields}
}

// next returns the next line of a level.
func (l Log) Next(t testing.TB, level string) LogLine {
	t.Helper()
	for {
		if line := Receive(t, l.Lines); line.Level == level {
			return line
		}
	}
}
