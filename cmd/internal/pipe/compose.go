package pipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"text/template"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Compose says what becomes of the input before it is published. The zero value changes nothing.
type Compose struct {
	// Headers are metadata, in the form key=value.
	Headers []string
	// Template executes payloads and the values of headers as templates of text/template, with TemplateData.
	Template bool
}

// TemplateData is what a template sees.
type TemplateData struct {
	Count    int // from 1
	ID       string
	Time     string // RFC 3339, UTC
	Unix     int64
	UnixNano int64
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// Random returns letters and digits, from least to most of them.
func (TemplateData) Random(least, most int) (string, error) {
	if least < 0 || most < least || most > largestMessage {
		return "", fmt.Errorf("Random %d %d: the lengths are not in order", least, most)
	}
	b := make([]byte, least+rand.IntN(most-least+1)) //nolint:gosec // filler, no secret
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))] //nolint:gosec // as above
	}
	return string(b), nil
}

// composer makes messages of lines. It is used by one goroutine.
type composer struct {
	headers  []composed
	template bool
	limit    int
	text     string             // of parsed
	parsed   *template.Template // the last payload: mostly it is the next one too
}

type composed struct {
	key, value string
	parsed     *template.Template // nil: value is literal
}

func newComposer(c Compose, limit int) (*composer, error) {
	out := &composer{template: c.Template, limit: limit}
	for _, header := range c.Headers {
		key, value, err := cutHeader(header)
		if err != nil {
			return nil, err
		}
		one := composed{key: key, value: value}
		if c.Template {
			if one.parsed, err = parseTemplate("header "+key, value); err != nil {
				return nil, err
			}
		}
		out.headers = append(out.headers, one)
	}
	return out, nil
}

func cutHeader(header string) (key, value string, err error) {
	key, value, ok := strings.Cut(header, "=")
	if !ok || key == "" {
		return "", "", fmt.Errorf("--header %.100q is not in the form key=value", header)
	}
	return key, value, nil
}

// Headers are metadata in the form key=value.
func Headers(headers []string) (map[string]string, error) {
	out := map[string]string{}
	for _, header := range headers {
		key, value, err := cutHeader(header)
		if err != nil {
			return nil, err
		}
		out[key] = value
	}
	return out, nil
}

func parseTemplate(name, text string) (*template.Template, error) {
	parsed, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("--template: %w", err)
	}
	return parsed, nil
}

// compose makes the message of a line.
func (c *composer) compose(l line) (*message.Message, error) {
	m := message.NewMessage(watermill.NewUUID(), l.payload)
	if !c.template {
		for _, header := range c.headers {
			m.Metadata.Set(header.key, header.value)
		}
		return m, nil
	}
	now := time.Now()
	data := TemplateData{
		Count: l.number, ID: m.UUID, Time: now.UTC().Format(time.RFC3339Nano), Unix: now.Unix(), UnixNano: now.UnixNano(),
	}
	if c.parsed == nil || c.text != string(l.payload) {
		var err error
		if c.parsed, err = parseTemplate("payload", string(l.payload)); err != nil {
			return nil, err
		}
		c.text = string(l.payload)
	}
	payload, err := execute(c.parsed, data)
	if err != nil {
		return nil, err
	}
	if len(payload) > c.limit {
		return nil, &TooLongError{What: fmt.Sprintf("message %d", l.number), Size: int64(len(payload)), Limit: c.limit}
	}
	m.Payload = payload
	for _, header := range c.headers {
		value, err := execute(header.parsed, data)
		if err != nil {
			return nil, err
		}
		m.Metadata.Set(header.key, string(value))
	}
	return m, nil
}

func execute(t *template.Template, data TemplateData) ([]byte, error) {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("--template: %w", err)
	}
	return b.Bytes(), nil
}

// repeat is an input of one payload, count times.
func repeat(ctx context.Context, payload []byte, count int) *input {
	in := &input{lines: make(chan line, readAhead)}
	go func() { // ends with the last, or after ctx
		defer close(in.lines)
		for i := range count {
			select {
			case in.lines <- line{i + 1, payload}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return in
}

// paced hands on up to count lines (0: all), at most rate a second (0: as they come). What it does not hand on is left.
func paced(ctx context.Context, from *input, rate float64, count int) *input {
	if rate == 0 && count == 0 {
		return from
	}
	in := &input{lines: make(chan line)}
	if rate == 0 {
		in.lines = make(chan line, readAhead)
	}
	go func() { // ends with the input or after ctx
		defer close(in.lines)
		var start time.Time // of the first line: nothing is made up for what came before
		for i := 0; count == 0 || i < count; i++ {
			l, ok := from.wait(ctx)
			if !ok {
				if ctx.Err() == nil {
					in.err = from.err
				}
				return
			}
			if rate > 0 && i > 0 && !sleep(ctx, time.Until(start.Add(time.Duration(float64(i)/rate*float64(time.Second))))) {
				return
			}
			select {
			case in.lines <- l:
			case <-ctx.Done():
				return
			}
			if i == 0 {
				start = time.Now()
			}
		}
	}()
	return in
}

// sleep tells whether ctx outlived it.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// source is the input of o.
func (o *PubOptions) source(ctx context.Context) (*input, error) {
	if o.Rate < 0 || o.Count < 0 {
		return nil, errors.New("--rate and --count must not be negative")
	}
	var payload []byte
	var err error
	switch {
	case o.Body != nil:
		if payload = *o.Body; len(payload) > o.MaxMessageSize {
			err = &TooLongError{What: "the message", Size: int64(len(payload)), Limit: o.MaxMessageSize}
		}
	case o.File != "":
		payload, err = readFile(o.File, o.MaxMessageSize)
	default:
		return paced(ctx, readLines(ctx, o.In, o.MaxMessageSize), o.Rate, o.Count), nil
	}
	if err == nil && o.Template {
		_, err = parseTemplate("payload", string(payload))
	}
	if err != nil {
		return nil, err
	}
	return paced(ctx, repeat(ctx, payload, max(o.Count, 1)), o.Rate, 0), nil
}
