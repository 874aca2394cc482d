package pipe

import (
	"io"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill"
)

// NewLogger writes to w what went wrong with connections, or with verbose what happens to them besides. The errors of a
// command are not among it.
func NewLogger(w io.Writer, verbose bool) watermill.LoggerAdapter {
	level := slog.LevelError
	if verbose {
		level = slog.LevelInfo
	}
	return watermill.NewSlogLogger(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})))
}
