package pipe

import (
	"bufio"
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
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
	Metadata map[string]string `json:"metadata"`
	// Payload is there only if it is UTF-8, as JSON has no other text. PayloadBase64 always has the exact bytes.
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64"`
}

// printer writes messages. Nothing is written for sure before flush has returned nil.
type printer struct {
	w      *bufio.Writer
	json   *json.Encoder
	format Format
}

func newPrinter(w io.Writer, format Format) *printer {
	buffered := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(buffered)
	enc.SetEscapeHTML(false)
	return &printer{buffered, enc, format}
}

func (p *printer) print(m *message.Message) error {
	if p.format == JSON {
		return p.json.Encode(asJSON(m))
	}
	if _, err := p.w.Write(m.Payload); err != nil || p.format == Raw {
		return err
	}
	return p.w.WriteByte('\n')
}

func asJSON(m *message.Message) printed {
	out := printed{UUID: m.UUID, Metadata: m.Metadata, PayloadBase64: m.Payload}
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
