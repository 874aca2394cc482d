package nats

import (
	"encoding/json"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// metadataHeader has the metadata as JSON where it does not fit into headers.
const metadataHeader = "_buffstreams_metadata"

// encode makes a message of the stream: the headers are the metadata and the UUID, as watermill-nats has them.
func encode(subject string, msg *message.Message) *nats.Msg {
	id := driver.ID(msg)
	header := make(nats.Header, len(msg.Metadata)+5)
	header[driver.UUIDHeader] = []string{msg.UUID}
	if id == "" {
		id = nuid.Next()
	}
	header[nats.MsgIdHdr] = []string{id}
	if plain(msg.Metadata) {
		for k, v := range msg.Metadata {
			header[k] = []string{v}
		}
	} else {
		encoded, _ := json.Marshal(msg.Metadata) // a map of strings always can be
		header[metadataHeader] = []string{string(encoded)}
	}
	return &nats.Msg{Subject: subject, Header: header, Data: msg.Payload}
}

// plain reports whether metadata comes back from headers as it is: neither names nor values have anything that headers
// cannot hold, and no name is one of NATS.
func plain(metadata message.Metadata) bool {
	for k, v := range metadata {
		if k == "" || v == "" || strings.HasPrefix(k, "Nats-") || strings.HasPrefix(k, "_") || strings.TrimSpace(v) != v {
			return false
		}
		for i := range len(k) {
			if k[i] <= ' ' || k[i] >= 0x7f || k[i] == ':' {
				return false
			}
		}
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return false
		}
	}
	return true
}

// decode makes a message of what the stream has. A message that another program published has no UUID, and gets none.
func decode(header nats.Header, data []byte) *message.Message {
	msg := message.NewMessage(header.Get(driver.UUIDHeader), data)
	for k, v := range header {
		switch {
		case k == metadataHeader && len(v) > 0:
			_ = json.Unmarshal([]byte(v[0]), &msg.Metadata) // what cannot be read was not written here
		case k == driver.UUIDHeader, k == driver.IDHeader, strings.HasPrefix(k, "Nats-"), len(v) == 0:
		default:
			msg.Metadata.Set(k, v[0])
		}
	}
	return msg
}
