package postgres

import (
	"encoding/binary"
	"encoding/json"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// statementBytes is about how much one statement stores: what exceeds the server's work_mem, 4 MiB by default, goes
// through files.
const statementBytes = 2 << 20

// columns returns the columns of messages as arrays in the server's binary format, each in memory that is made once:
// arrays of megabytes that grow cost more than all else.
func columns(messages []*message.Message) (uuids, payloads, metadata []byte) {
	uuidSize, payloadSize := 0, 0
	for _, msg := range messages {
		uuidSize, payloadSize = uuidSize+len(msg.UUID), payloadSize+len(msg.Payload)
	}
	uuids = newArray(pgtype.TextOID, len(messages), uuidSize)
	payloads = newArray(pgtype.ByteaOID, len(messages), payloadSize)
	metadata = newArray(pgtype.TextOID, len(messages), 100*len(messages))
	for _, msg := range messages {
		uuids = append(binary.BigEndian.AppendUint32(uuids, uint32(len(msg.UUID))), msg.UUID...)
		payloads = append(binary.BigEndian.AppendUint32(payloads, uint32(len(msg.Payload))), msg.Payload...)
		start := len(metadata) + 4
		metadata = appendMetadata(append(metadata, 0, 0, 0, 0), msg.Metadata, driver.ID(msg))
		binary.BigEndian.PutUint32(metadata[start-4:], uint32(len(metadata)-start))
	}
	return uuids, payloads, metadata
}

// newArray returns the head of an array of n elements, with room for them.
func newArray(element uint32, n, size int) []byte {
	dst := make([]byte, 0, 20+4*n+size)
	for _, head := range []uint32{1, 0, element, uint32(n), 1} { // of one dimension, without NULL, from 1 on
		dst = binary.BigEndian.AppendUint32(dst, head)
	}
	return dst
}

// appendMetadata appends metadata, and the ID where there is one, as a JSON object.
func appendMetadata(dst []byte, metadata message.Metadata, id string) []byte {
	dst = append(dst, '{')
	for k, v := range metadata {
		if k != driver.IDHeader || id == "" {
			dst = append(appendString(append(appendString(dst, k), ':'), v), ',')
		}
	}
	switch last := len(dst) - 1; {
	case id != "":
		dst = append(appendString(append(appendString(dst, driver.IDHeader), ':'), id), '}')
	case dst[last] == ',':
		dst[last] = '}'
	default:
		dst = append(dst, '}')
	}
	return dst
}

// appendString appends a string of JSON. Most need no escapes.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			encoded, _ := json.Marshal(s) // a string always can be
			return append(dst, encoded...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
