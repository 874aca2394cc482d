package buffstreams

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"google.golang.org/protobuf/encoding/protowire"
)

// Marshaler encodes messages for the wire. It must be safe for concurrent use.
type Marshaler interface {
	// Marshal appends the encoded message to dst, which is empty, and returns the longer slice. dst is memory that is
	// at hand: returning other memory works too, and costs a copy. Marshal must not keep dst. It is called on the
	// goroutine that publishes, with no lock held; a panic is an error of that Publish call.
	Marshal(dst []byte, topic string, msg *message.Message) ([]byte, error)
}

// Unmarshaler decodes messages from the wire. It must be safe for concurrent use.
type Unmarshaler interface {
	// Unmarshal decodes one message. data is the message's own: it may refer to it. Its publisher is told of an error
	// as ErrUndecodable, or, if the error wraps ErrLimit, as that. It is called on the goroutine of its subscription,
	// which waits for it, with no lock held. A panic, or neither a message nor an error, is an error of that message.
	Unmarshal(topic string, data []byte) (*message.Message, error)
}

// EnvelopeMarshaler encodes a message as the protobuf message Envelope of proto/envelope.proto: UUID, payload,
// metadata. It is the default.
type EnvelopeMarshaler struct{}

// Fields of Envelope, and of the entries of its map.
const (
	envelopeUUID     protowire.Number = 1
	envelopePayload  protowire.Number = 2
	envelopeMetadata protowire.Number = 3
	entryKey         protowire.Number = 1
	entryValue       protowire.Number = 2
)

// Marshal implements Marshaler. Metadata is written in order of its keys, so that equal messages have equal bytes.
// UUID and keys must be valid UTF-8, as protobuf strings are; values may be any bytes.
func (EnvelopeMarshaler) Marshal(dst []byte, _ string, msg *message.Message) ([]byte, error) {
	if !utf8.ValidString(msg.UUID) {
		return dst, fmt.Errorf("buffstreams: the UUID %.100q is not valid UTF-8", msg.UUID)
	}
	var entries []entry
	if len(msg.Metadata) > 0 { // to go through a map, or to clear room for entries, costs more than all else here
		var few [8]entry
		var err error
		if entries, err = sortedEntries(few[:0], msg.Metadata); err != nil {
			return dst, err
		}
	}
	if msg.UUID != "" {
		dst = protowire.AppendTag(dst, envelopeUUID, protowire.BytesType)
		dst = protowire.AppendString(dst, msg.UUID)
	}
	if len(msg.Payload) > 0 {
		dst = protowire.AppendTag(dst, envelopePayload, protowire.BytesType)
		dst = protowire.AppendBytes(dst, msg.Payload)
	}
	for _, e := range entries {
		dst = appendEntry(dst, e)
	}
	return dst, nil
}

// entry is one of a message's metadata.
type entry struct{ key, value string }

// sortedEntries appends metadata in order of its keys.
func sortedEntries(dst []entry, metadata message.Metadata) ([]entry, error) {
	for k, v := range metadata {
		if !utf8.ValidString(k) {
			return nil, fmt.Errorf("buffstreams: the metadata key %.100q is not valid UTF-8", k)
		}
		dst = append(dst, entry{k, v})
	}
	slices.SortFunc(dst, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return dst, nil
}

func appendEntry(dst []byte, e entry) []byte {
	size := 2 + protowire.SizeBytes(len(e.key)) + protowire.SizeBytes(len(e.value))
	dst = protowire.AppendTag(dst, envelopeMetadata, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(size))
	dst = protowire.AppendTag(dst, entryKey, protowire.BytesType)
	dst = protowire.AppendString(dst, e.key)
	dst = protowire.AppendTag(dst, entryValue, protowire.BytesType)
	return protowire.AppendString(dst, e.value)
}

// stringsFrom is the size of an envelope from which on its strings are copied: a user who keeps only those would
// otherwise keep much more with them.
const stringsFrom = 1 << 10

// Unmarshal implements Unmarshaler. Fields that it does not know are passed over. UUID and metadata of a small message
// are views of data, as the payload always is.
func (EnvelopeMarshaler) Unmarshal(_ string, data []byte) (*message.Message, error) {
	msg := message.NewMessage("", nil)
	var text string // the envelope, or the rest of it from the first metadata on, for all its strings
	if len(data) < stringsFrom {
		text = unsafe.String(unsafe.SliceData(data), len(data)) //nolint:gosec // only the payload is ever written, and that by its user
	}
	for len(data) > 0 {
		num, value, rest, err := nextField(data)
		if err != nil {
			return nil, err
		}
		switch num {
		case envelopeUUID:
			if !utf8.Valid(value) {
				return nil, errNotUTF8
			}
			if text == "" {
				msg.UUID = string(value)
			} else {
				msg.UUID = cut(text, value, rest)
			}
		case envelopePayload:
			msg.Payload = value[:len(value):len(value)]
		case envelopeMetadata:
			if text == "" {
				text = string(data)
			}
			if err := unmarshalEntry(msg.Metadata, value, cut(text, value, rest)); err != nil {
				return nil, err
			}
		}
		data = rest
	}
	return msg, nil
}

var errNotUTF8 = errors.New("buffstreams: the UUID or a metadata key of an envelope is not valid UTF-8")

// cut returns value, which stands before rest at the end of text, as a part of text.
func cut(text string, value, rest []byte) string {
	end := len(text) - len(rest)
	return text[end-len(value) : end]
}

// unmarshalEntry reads one entry of the metadata. text is data as a string.
func unmarshalEntry(m message.Metadata, data []byte, text string) error {
	var k, v string
	for len(data) > 0 {
		num, value, rest, err := nextField(data)
		if err != nil {
			return err
		}
		switch num {
		case entryKey:
			if !utf8.Valid(value) {
				return errNotUTF8
			}
			k = cut(text, value, rest)
		case entryValue:
			v = cut(text, value, rest)
		}
		data = rest
	}
	m[k] = v
	return nil
}

// nextField takes the first field off a protobuf message. Of one that is not length-delimited the number is 0.
func nextField(data []byte) (num protowire.Number, value, rest []byte, err error) {
	// The usual field: one byte for number and type, one for a length. For all others there is protowire.
	if len(data) > 1 && data[0] < 0x80 && data[0] > 7 && protowire.Type(data[0]&7) == protowire.BytesType &&
		data[1] < 0x80 && len(data)-2 >= int(data[1]) {
		end := 2 + int(data[1])
		return protowire.Number(data[0] >> 3), data[2:end], data[end:], nil
	}
	num, typ, n := protowire.ConsumeTag(data)
	if n < 0 {
		return 0, nil, nil, fmt.Errorf("buffstreams: not an envelope: %w", protowire.ParseError(n))
	}
	if typ == protowire.BytesType {
		value, m := protowire.ConsumeBytes(data[n:])
		if m < 0 {
			return 0, nil, nil, fmt.Errorf("buffstreams: not an envelope: %w", protowire.ParseError(m))
		}
		return num, value, data[n+m:], nil
	}
	m := protowire.ConsumeFieldValue(num, typ, data[n:])
	if m < 0 {
		return 0, nil, nil, fmt.Errorf("buffstreams: not an envelope: %w", protowire.ParseError(m))
	}
	return 0, nil, data[n+m:], nil
}

// RawMarshaler sends the payload alone, for peers that speak plain BuffStreams. UUID and metadata are not sent;
// received messages get a new UUID.
type RawMarshaler struct{}

// Marshal implements Marshaler.
func (RawMarshaler) Marshal(dst []byte, _ string, msg *message.Message) ([]byte, error) {
	return append(dst, msg.Payload...), nil
}

// Unmarshal implements Unmarshaler.
func (RawMarshaler) Unmarshal(_ string, data []byte) (*message.Message, error) {
	return message.NewMessage(watermill.NewUUID(), data), nil
}
