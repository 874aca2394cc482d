package tap

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/frames"
)

// printer writes a line for each frame.
type printer struct {
	o      *Options
	failed func(error) // is told that the output takes no more
	mu     sync.Mutex  // held while a line is written
}

// entry is a line, as JSON has it.
type entry struct {
	Time       string          `json:"time"`
	Connection int64           `json:"connection"`
	Direction  string          `json:"direction,omitempty"` // ">" to the listener, "<" back
	Event      string          `json:"event,omitempty"`     // of the connection
	Detail     string          `json:"detail,omitempty"`
	Kind       string          `json:"kind,omitempty"` // of the frame, such as "publish"
	Size       int             `json:"size,omitempty"` // of its payload in bytes
	Damaged    bool            `json:"damaged,omitempty"`
	Body       json.RawMessage `json:"body,omitempty"`
	Messages   []shown         `json:"messages,omitempty"`
}

// shown is a message.
type shown struct {
	UUID     string            `json:"uuid,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Payload  []byte            `json:"payload_base64"`
}

func (p *printer) write(e entry, text string) error {
	e.Time = time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")
	line := fmt.Sprintf("%s %d %s\n", e.Time[11:26], e.Connection, text)
	if p.o.JSON {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		line = string(b) + "\n"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprint(p.o.Out, line)
	if err != nil {
		p.failed(err)
	}
	return err
}

// event is about a connection.
func (p *printer) event(id int64, event, detail string) {
	_ = p.write(entry{Connection: id, Event: event, Detail: detail}, strings.TrimSpace("* "+event+" "+quoted(detail)))
}

func quoted(text string) string {
	if text == "" {
		return ""
	}
	return strconv.Quote(text)
}

// secrets are fields of frames that are shown as their length only.
var secrets = map[protoreflect.Name]bool{"token": true, "secret": true}

func (p *printer) frame(id int64, direction string, payload []byte) error {
	if p.o.Plain {
		e := entry{Connection: id, Direction: direction, Kind: "message", Size: len(payload)}
		text := fmt.Sprintf("%s message %d bytes", direction, len(payload))
		if p.o.Payloads {
			e.Messages = []shown{{Payload: payload}}
			text += " " + preview(payload)
		}
		return p.write(e, text)
	}
	f, err := frames.Parse(payload)
	if err != nil {
		return err
	}
	e := entry{Connection: id, Direction: direction, Kind: f.Kind, Size: f.Size, Damaged: f.Damaged}
	damage := ""
	if f.Damaged {
		damage = " DAMAGED"
	}
	if f.Kind == "" {
		return p.write(e, fmt.Sprintf("%s unknown frame of %d bytes", direction, f.Size))
	}
	messages := p.redact(f.Body())
	if e.Body, err = f.JSON(); err != nil {
		return err
	}
	text := []string{fmt.Sprintf("%s %s size=%d%s %s", direction, f.Kind, f.Size, damage, fields(f.Body()))}
	if f.Kind == "publish" {
		text[0] += fmt.Sprintf(" messages=%d bytes=%d", len(messages), total(messages))
	}
	if p.o.Payloads {
		for _, m := range messages {
			one := decode(m)
			e.Messages = append(e.Messages, one)
			text = append(text, fmt.Sprintf("    %s %s %s", one.UUID, pairs(one.Metadata), preview(one.Payload)))
		}
	}
	return p.write(e, strings.Join(text, "\n"))
}

// redact takes secrets and messages out of a body, and returns the messages.
func (p *printer) redact(body protoreflect.Message) (messages [][]byte) {
	body.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case secrets[field.Name()] && field.Kind() == protoreflect.BytesKind:
			body.Set(field, protoreflect.ValueOfBytes([]byte("REDACTED"))) // not even the length is shown
		case field.Name() == "messages" && field.IsList():
			for i := range v.List().Len() {
				messages = append(messages, v.List().Get(i).Bytes())
			}
			body.Clear(field)
		}
		return true
	})
	return messages
}

// fields are name=value of what is set, in the order of proto/.
func fields(body protoreflect.Message) string {
	var parts []string
	all := body.Descriptor().Fields()
	for i := range all.Len() {
		field := all.Get(i)
		if !body.Has(field) {
			continue
		}
		v := body.Get(field)
		var text string
		switch {
		case secrets[field.Name()]:
			text = "REDACTED"
		case field.IsList():
			list := make([]string, v.List().Len())
			for j := range list {
				list[j] = v.List().Get(j).String()
			}
			text = "[" + strings.Join(list, " ") + "]"
		case field.Kind() == protoreflect.BytesKind:
			text = fmt.Sprintf("%x", v.Bytes())
		case field.Kind() == protoreflect.StringKind:
			text = strconv.Quote(v.String())
		case field.Kind() == protoreflect.EnumKind:
			if text = strconv.Itoa(int(v.Enum())); field.Enum().Values().ByNumber(v.Enum()) != nil {
				text = string(field.Enum().Values().ByNumber(v.Enum()).Name())
			}
		default:
			text = v.String()
		}
		parts = append(parts, fmt.Sprintf("%s=%s", field.Name(), text))
	}
	if n := len(body.GetUnknown()); n > 0 {
		parts = append(parts, fmt.Sprintf("unknown=%d bytes", n))
	}
	return strings.Join(parts, " ")
}

func total(messages [][]byte) (n int) {
	for _, m := range messages {
		n += len(m)
	}
	return n
}

// decode reads a message of the default marshaler; another one's is all payload.
func decode(encoded []byte) shown {
	uuid, metadata, payload, ok := frames.Envelope(encoded)
	if !ok {
		return shown{Payload: encoded}
	}
	return shown{UUID: uuid, Metadata: metadata, Payload: payload}
}

func pairs(metadata map[string]string) string {
	b, err := json.Marshal(metadata)
	if err != nil || len(metadata) == 0 {
		return "{}"
	}
	return string(b)
}

// maxPreview is how much of a payload a line shows, in bytes.
const maxPreview = 200

func preview(payload []byte) string {
	if len(payload) <= maxPreview {
		return strconv.Quote(string(payload))
	}
	return strconv.Quote(string(payload[:maxPreview])) + fmt.Sprintf(" and %d bytes more", len(payload)-maxPreview)
}
