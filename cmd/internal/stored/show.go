package stored

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// shown is a message of an outbox as JSON has it.
type shown struct {
	Destination string            `json:"destination"`
	Topic       string            `json:"topic"`
	Sequence    uint64            `json:"sequence"`
	Sent        bool              `json:"sent"` // it may have been sent already
	UUID        string            `json:"uuid"`
	Metadata    map[string]string `json:"metadata"`
	Payload     *string           `json:"payload,omitempty"` // if it is UTF-8
	Base64      []byte            `json:"payload_base64"`
}

// maxPreview is how much of a payload a line shows, in bytes.
const maxPreview = 80

func (s shown) text() string {
	parts := []string{pipe.Printable(s.Destination), pipe.Printable(s.Topic), fmt.Sprint(s.Sequence), pipe.Printable(s.UUID)}
	for _, key := range slices.Sorted(maps.Keys(s.Metadata)) {
		parts = append(parts, pipe.Printable(key)+"="+pipe.Printable(s.Metadata[key]))
	}
	preview := fmt.Sprintf("%q", s.Base64)
	if len(s.Base64) > maxPreview {
		preview = fmt.Sprintf("%q... (%d bytes)", s.Base64[:maxPreview], len(s.Base64))
	}
	return strings.Join(append(parts, preview), " ")
}

// Show prints messages of an outbox, at most count of them (0: all): a line each.
func Show(dir string, s Selection, count int, asJSON bool, out io.Writer) (err error) {
	box, err := pipe.OpenOutbox(dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	printed, unreadable := 0, 0
	for _, one := range s.streams(box) {
		first, last := s.bounds(one)
		err := walk(box, one.Key, first, last, func(first uint64, messages [][]byte) error {
			for i, encoded := range messages {
				if count > 0 && printed == count {
					return errEnough
				}
				printed++
				m := show(one, first+uint64(i), encoded)
				if asJSON {
					if err := enc.Encode(m); err != nil {
						return err
					}
				} else if _, err := fmt.Fprintln(out, m.text()); err != nil {
					return err
				}
			}
			return nil
		}, func(*store.CorruptError) error { unreadable++; return nil })
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	if unreadable > 0 {
		return fmt.Errorf("some messages cannot be read; 'buffstreams outbox repair %s' names them", dir)
	}
	return nil
}

func show(one store.Stream, sequence uint64, encoded []byte) shown {
	m := shown{
		Destination: one.Key.Destination, Topic: one.Key.Topic, Sequence: sequence, Sent: sequence < one.Sent,
		Metadata: map[string]string{}, Base64: encoded,
	}
	decoded, err := buffstreams.EnvelopeMarshaler{}.Unmarshal(one.Key.Topic, encoded)
	if err == nil { // otherwise it is another marshaler's, and all of it is payload
		m.UUID, m.Base64 = decoded.UUID, append([]byte{}, decoded.Payload...)
		maps.Copy(m.Metadata, decoded.Metadata)
	}
	if utf8.Valid(m.Base64) {
		text := string(m.Base64)
		m.Payload = &text
	}
	return m
}
