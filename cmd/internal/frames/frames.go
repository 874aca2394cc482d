// Package frames reads and writes the frames of the acked protocol one at a time, for what looks at them: tap and
// check. It knows them by their descriptors, which the library registers, so that a frame of a later version shows its
// new fields.
package frames

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/buffstreams/watermill-buffstreams" // registers the messages of the protocol
	"github.com/buffstreams/watermill-buffstreams/framing"
)

const (
	frameName     = "buffstreams.v1.Frame"
	envelopeName  = "buffstreams.v1.Envelope"
	checksumField = 15
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Frame is one frame.
type Frame struct {
	Message protoreflect.Message
	Kind    string // the name of its body, such as "publish"; empty if it has none that is known
	Size    int    // of the payload in bytes
	// Checksum tells whether the frame has one, and Damaged that it does not fit.
	Checksum, Damaged bool
}

// Body is the body that Kind names; nil if there is none.
func (f Frame) Body() protoreflect.Message {
	field := f.Message.Descriptor().Fields().ByName(protoreflect.Name(f.Kind))
	if field == nil {
		return nil
	}
	return f.Message.Get(field).Message()
}

// JSON is the body for readers, with the names of proto/.
func (f Frame) JSON() ([]byte, error) {
	body := f.Body()
	if body == nil {
		return []byte("{}"), nil
	}
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(body.Interface())
}

func newMessage(name protoreflect.FullName) (protoreflect.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		return nil, err
	}
	return kind.New(), nil
}

// Parse reads the payload of a frame.
func Parse(payload []byte) (Frame, error) {
	m, err := newMessage(frameName)
	if err != nil {
		return Frame{}, err
	}
	if err := proto.Unmarshal(payload, m.Interface()); err != nil {
		return Frame{}, fmt.Errorf("this is no frame of the acked protocol: %w", err)
	}
	f := Frame{Message: m, Size: len(payload)}
	if body := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")); body != nil {
		f.Kind = string(body.Name())
	}
	const trailer = 1 + 4 // tag and checksum
	if n := len(payload) - trailer; n >= 0 && payload[n] == byte(protowire.EncodeTag(checksumField, protowire.Fixed32Type)) {
		f.Checksum = true
		f.Damaged = crc32.Checksum(payload[:n], castagnoli) != binary.LittleEndian.Uint32(payload[n+1:])
	}
	return f, nil
}

// Envelope reads a message as the default marshaler encodes it. ok is false for other bytes.
func Envelope(encoded []byte) (uuid string, metadata map[string]string, payload []byte, ok bool) {
	m, err := newMessage(envelopeName)
	if err != nil || proto.Unmarshal(encoded, m.Interface()) != nil || len(m.GetUnknown()) > 0 {
		return "", nil, nil, false
	}
	fields := m.Descriptor().Fields()
	metadata = map[string]string{}
	m.Get(fields.ByName("metadata")).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		metadata[k.String()] = string(v.Bytes())
		return true
	})
	return m.Get(fields.ByName("uuid")).String(), metadata, m.Get(fields.ByName("payload")).Bytes(), true
}

// Hello is what a connection begins with.
type Hello struct {
	Token, Agent string
	MaxFrame     uint64
}

const version = 1

// Write sends a Hello, with a checksum unless the connection has one of its own, as with TLS.
func (h Hello) Write(w io.Writer, checksum bool) error {
	m, err := newMessage(frameName)
	if err != nil {
		return err
	}
	field := m.Descriptor().Fields().ByName("hello")
	hello := m.Mutable(field).Message()
	fields := field.Message().Fields()
	hello.Set(fields.ByName("version"), protoreflect.ValueOfUint32(version))
	hello.Set(fields.ByName("max_frame"), protoreflect.ValueOfUint64(h.MaxFrame))
	hello.Set(fields.ByName("agent"), protoreflect.ValueOfString(h.Agent))
	if h.Token != "" {
		hello.Set(fields.ByName("token"), protoreflect.ValueOfBytes([]byte(h.Token)))
	}
	payload, err := proto.Marshal(m.Interface())
	if err != nil {
		return err
	}
	if checksum {
		sum := crc32.Checksum(payload, castagnoli)
		payload = protowire.AppendTag(payload, checksumField, protowire.Fixed32Type)
		payload = protowire.AppendFixed32(payload, sum)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...))
	return err
}

// Codec is the framing of the acked protocol, for frames of up to limit bytes.
func Codec(limit int) (framing.Fixed, error) { return framing.NewFixed(4, binary.BigEndian, limit) }

// Read reads one frame of up to limit bytes, and nothing behind it if r is not buffered further on.
func Read(r io.Reader, limit int) (Frame, error) {
	codec, err := Codec(limit)
	if err != nil {
		return Frame{}, err
	}
	payload, err := framing.NewReader(r, codec).Next()
	if err != nil {
		return Frame{}, err
	}
	return Parse(payload)
}
