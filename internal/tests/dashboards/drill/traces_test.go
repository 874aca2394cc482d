package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/buffstreams/watermill-buffstreams/tracing"
)

// spanFile gets a line for each span that has ended, in place of a backend for traces.
type spanFile struct {
	mu   sync.Mutex // guards file
	file io.Writer
}

// newTracing makes a Tracing whose spans go to a file.
func newTracing(path string) (*tracing.Tracing, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return tracing.New(tracing.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(&spanFile{file: f}))})
}

// ExportSpans implements sdktrace.SpanExporter.
func (s *spanFile) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range spans {
		var attributes []string
		for _, a := range span.Attributes() {
			attributes = append(attributes, fmt.Sprint(a.Key, "=", a.Value.AsInterface()))
		}
		slices.Sort(attributes)
		line, err := json.Marshal(fmt.Sprintf("%s: %s; %s", span.Name(), span.Status().Description, strings.Join(attributes, " ")))
		if err != nil {
			return err
		}
		if _, err := s.file.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (s *spanFile) Shutdown(context.Context) error { return nil }

// spans reads what has ended since an offset, each as "name: status; attributes", and returns the offset behind it.
func (p *process) spans(from int64) (all []string, next int64) {
	f, err := os.Open(p.role.Traces)
	if err != nil {
		return nil, from
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, from
	}
	d := json.NewDecoder(f)
	for {
		var one string
		if d.Decode(&one) != nil { // its end, or that of a line that is being written
			return all, from + d.InputOffset()
		}
		all = append(all, one)
	}
}
