package pipe

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// Format says how messages are written.
type Format int

// The formats.
const (
	Text Format = iota // the payload and a newline
	Raw                // the payload alone
	JSON               // one object a line, exact for every payload
)

// printed is a message as JSON has it.
type printed struct {
	UUID     string            `json:"uuid"`
	Time     string            `json:"time,omitempty"`    // of arrival, RFC 3339 in UTC
	Attempt  int               `json:"attempt,omitempty"` // not on the plain wire
	Metadata map[string]string `json:"metadata"`
	// Payload is there only if it is UTF-8, as JSON has no other text. PayloadBase64 always has the exact bytes.
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitzero"`
}

// printer writes messages. Nothing is written for sure before flush has returned nil.
type printer struct {
	w      *bufio.Writer
	json   *json.Encoder
	format Format
	stamp  bool
	meta   bool
}

func newPrinter(o SubOptions) *printer {
	buffered := bufio.NewWriterSize(o.Out, 64<<10)
	enc := json.NewEncoder(buffered)
	enc.SetEscapeHTML(false)
	return &printer{buffered, enc, o.Format, o.Timestamp, o.Headers}
}

func (p *printer) print(m *message.Message) error {
	if p.format == JSON {
		return p.json.Encode(asJSON(m, p.stamp))
	}
	if p.meta {
		if err := p.printHeaders(m); err != nil {
			return err
		}
	}
	if p.stamp {
		if _, err := p.w.WriteString(now() + " "); err != nil {
			return err
		}
	}
	if _, err := p.w.Write(m.Payload); err != nil || p.format == Raw {
		return err
	}
	return p.w.WriteByte('\n')
}

// now is a time of fixed width, so that lines stand in columns and sort.
func now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000000Z") }

// printHeaders writes a line "# UUID key=value ..." with what could mislead a reader in quotes.
func (p *printer) printHeaders(m *message.Message) error {
	parts := []string{"#", Printable(m.UUID)}
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		parts = append(parts, Printable(key)+"="+Printable(m.Metadata[key]))
	}
	_, err := p.w.WriteString(strings.Join(parts, " ") + "\n")
	return err
}

func asJSON(m *message.Message, stamp bool) printed {
	out := printed{UUID: m.UUID, Metadata: m.Metadata, PayloadBase64: m.Payload}
	if stamp {
		out.Time = now()
	}
	if d, ok := buffstreams.DeliveryFromContext(m.Context()); ok {
		out.Attempt = d.Attempt
	}
	if out.Metadata == nil {
		out.Metadata = map[string]string{}
	}
	if out.PayloadBase64 == nil {
		out.PayloadBase64 = []byte{} // "" rather than null
	}
	if utf8.Valid(m.Payload) {
		text := string(m.Payload)
		out.Payload = &text
	}
	return out
}

func (p *printer) flush() error { return p.w.Flush() }

// Print writes one message.
func Print(w io.Writer, format Format, m *message.Message) error {
	p := newPrinter(SubOptions{Out: w, Format: format})
	if err := p.print(m); err != nil {
		return err
	}
	return p.flush()
}
