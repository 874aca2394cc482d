package buffstreams

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func sample() *message.Message {
	msg := message.NewMessage("id-1", []byte("payload"))
	msg.Metadata.Set("b", "2")
	msg.Metadata.Set("a", "any \xff bytes")
	msg.Metadata.Set("empty", "")
	return msg
}

// TestEnvelope_IsTheProtobufMessage: what another language makes of envelope.proto is what we read and write.
func TestEnvelope_IsTheProtobufMessage(t *testing.T) {
	msg := sample()
	data, err := EnvelopeMarshaler{}.Marshal(nil, "", msg)
	require.NoError(t, err)
	var envelope wire.Envelope
	require.NoError(t, proto.Unmarshal(data, &envelope))
	require.Equal(t, msg.UUID, envelope.Uuid)
	require.Equal(t, []byte(msg.Payload), envelope.Payload)
	require.Len(t, envelope.Metadata, 3)
	require.Equal(t, "any \xff bytes", string(envelope.Metadata["a"]))

	data, err = proto.Marshal(&envelope)
	require.NoError(t, err)
	got, err := EnvelopeMarshaler{}.Unmarshal("", data)
	require.NoError(t, err)
	require.True(t, msg.Equals(got))
}

func TestEnvelope_RefusesKeysThatAreNoText(t *testing.T) {
	msg := sample()
	msg.Metadata.Set("\xff", "x")
	_, err := EnvelopeMarshaler{}.Marshal(nil, "", msg)
	require.ErrorContains(t, err, `"\xff"`)
	_, err = EnvelopeMarshaler{}.Marshal(nil, "", message.NewMessage("\xff", nil))
	require.ErrorContains(t, err, "UUID")
}

// What a sender in another language puts where text must be is refused, in small and in large envelopes.
func TestEnvelope_TextThatIsNoTextIsRefused(t *testing.T) {
	for _, payload := range []int{0, 10_000} {
		for name, e := range map[string][]byte{
			"uuid": {0x0a, 2, 'a', 0xff},
			"key":  {0x1a, 3, 0x0a, 1, 0xff},
		} {
			data := protowire.AppendBytes(append(e, 0x12), make([]byte, payload))
			_, err := EnvelopeMarshaler{}.Unmarshal("", data)
			require.ErrorContains(t, err, "UTF-8", name)
		}
		data := protowire.AppendBytes([]byte{0x1a, 6, 0x0a, 1, 'k', 0x12, 1, 0xff, 0x12}, make([]byte, payload))
		msg, err := EnvelopeMarshaler{}.Unmarshal("", data)
		require.NoError(t, err, "values are any bytes")
		require.Equal(t, "\xff", msg.Metadata.Get("k"))
	}
}

func TestEnvelope_TruncatedIsAnErrorOrAnother(t *testing.T) {
	data, err := EnvelopeMarshaler{}.Marshal(nil, "", sample())
	require.NoError(t, err)
	for n := range data {
		msg, err := EnvelopeMarshaler{}.Unmarshal("", data[:n])
		if err == nil { // cut between two fields
			require.False(t, sample().Equals(msg), "prefix of %d", n)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	data, _ := EnvelopeMarshaler{}.Marshal(nil, "", sample())
	f.Add(data)
	f.Add([]byte{0x1a, 0x02, 0x0a, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		msg, err := EnvelopeMarshaler{}.Unmarshal("", data)
		if err != nil {
			return
		}
		again, err := EnvelopeMarshaler{}.Marshal(nil, "", msg)
		require.NoError(t, err, "what is no text was refused")
		got, err := EnvelopeMarshaler{}.Unmarshal("", again)
		require.NoError(t, err)
		require.True(t, msg.Equals(got))
	})
}

func TestTopic(t *testing.T) {
	for topic, want := range map[string]struct {
		address, name string
		tls           bool
	}{
		"127.0.0.1:5031":               {"127.0.0.1:5031", "", false},
		"127.0.0.1:5031/orders":        {"127.0.0.1:5031", "orders", false},
		":5031/orders/eu":              {":5031", "orders/eu", false},
		"tcp://[::1]:5031/orders":      {"[::1]:5031", "orders", false},
		"tls://example.com:443/orders": {"example.com:443", "orders", true},
		"unix:///run/s.sock#orders":    {"/run/s.sock", "orders", false},
	} {
		d, ok, err := parseTopic(topic, false)
		require.NoError(t, err, topic)
		require.True(t, ok, topic)
		require.Equal(t, want.address, d.target.Address, topic)
		require.Equal(t, want.name, d.name, topic)
		require.Equal(t, want.tls, d.target.TLS, topic)
	}
	for _, topic := range []string{"orders", "orders/eu", "orders:created", "example.com", "a:b:1"} {
		_, ok, err := parseTopic(topic, false)
		require.NoError(t, err, topic)
		require.False(t, ok, topic)
	}
	for _, topic := range []string{"tcp://orders", "http://a:1/x", "unix://a#b", "tls://:x"} {
		_, _, err := parseTopic(topic, false)
		require.ErrorIs(t, err, ErrBadTopic, topic)
	}
}

// A handler may append to the payload and write to it: nothing else of the message lies behind it.
func TestEnvelope_PayloadEndsWhereItEnds(t *testing.T) {
	for _, size := range []int{10, 2 * stringsFrom} {
		msg := message.NewMessage("id", make([]byte, size))
		msg.Metadata.Set("key", "value")
		data, err := EnvelopeMarshaler{}.Marshal(nil, "", msg)
		require.NoError(t, err)
		got, err := EnvelopeMarshaler{}.Unmarshal("", data)
		require.NoError(t, err)
		require.Len(t, append(got.Payload, "xxxxxx"...), size+6)
		require.Equal(t, message.Metadata{"key": "value"}, got.Metadata)
		require.Equal(t, "id", got.UUID)
	}
}

// TestEnvelope_EqualMessagesHaveEqualBytes: metadata is in order of its keys, however many there are.
func TestEnvelope_EqualMessagesHaveEqualBytes(t *testing.T) {
	for _, count := range []int{5, 20} {
		msg, want := message.NewMessage("1", nil), []byte{0x0a, 1, '1'}
		for i := range count {
			key := string(rune('a' + i))
			msg.Metadata.Set(key, key)
			want = append(want, 0x1a, 6, 0x0a, 1, key[0], 0x12, 1, key[0])
		}
		for range 10 { // a map has another order each time
			data, err := EnvelopeMarshaler{}.Marshal(nil, "", msg)
			require.NoError(t, err)
			require.Equal(t, want, data)
		}
	}
}

// TestEnvelope_PassesOverWhatItDoesNotKnow: fields of other numbers, and those of its own that have another type, as protobuf does. No
// field has the number 0.
func TestEnvelope_PassesOverWhatItDoesNotKnow(t *testing.T) {
	const known = "\x0a\x01u\x12\x01p\x1a\x06\x0a\x01k\x12\x01v"
	for _, other := range []string{"", "\x08\x05", "\x10\x05", "\x18\x05", "\x0d1234", "\x7a\x01x", "\x82\x01\x01x", "\x1a\x08\x0a\x01k\x12\x01v\x08\x05"} {
		for _, encoded := range []string{other + known, known + other} {
			msg, err := EnvelopeMarshaler{}.Unmarshal("", []byte(encoded))
			require.NoError(t, err, "%q", encoded)
			require.Equal(t, []any{"u", "p", message.Metadata{"k": "v"}}, []any{msg.UUID, string(msg.Payload), msg.Metadata}, "%q", encoded)
		}
	}
	for _, bad := range []string{"\x02\x00", "\x02\x01x", "\x0a", "\x0a\x02u", "\x1a\x02\x02\x00", "\x0b"} {
		_, err := EnvelopeMarshaler{}.Unmarshal("", []byte(bad))
		require.Error(t, err, "%q", bad)
	}
}

// TestEnvelope_StringsOfALargeOneAreTheirOwn: who keeps only them keeps nothing else of the message.
func TestEnvelope_StringsOfALargeOneAreTheirOwn(t *testing.T) {
	for _, size := range []int{stringsFrom, 100 * stringsFrom} {
		msg := message.NewMessage("uuid", make([]byte, size))
		msg.Metadata.Set("key", "value")
		data, err := EnvelopeMarshaler{}.Marshal(nil, "", msg)
		require.NoError(t, err)
		got, err := EnvelopeMarshaler{}.Unmarshal("", data)
		require.NoError(t, err)
		clear(data)
		require.Equal(t, "uuid", got.UUID)
		require.Equal(t, message.Metadata{"key": "value"}, got.Metadata)
	}
}
