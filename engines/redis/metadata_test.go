package redis

import (
	"strconv"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
)

// TestMetadata_IsWhatWatermillRedisstreamReads: of each length that MessagePack writes differently.
func TestMetadata_IsWhatWatermillRedisstreamReads(t *testing.T) {
	many := message.Metadata{}
	for i := range 70000 {
		many[strconv.Itoa(i)] = ""
	}
	few := message.Metadata{"": "", "ключ": "значение"}
	for _, n := range []int{31, 32, 255, 256, 65535, 65536} {
		few[strings.Repeat("k", n)] = strings.Repeat("v", n)
	}
	sixteen := message.Metadata{}
	for i := range 16 {
		sixteen[strconv.Itoa(i)] = "v"
	}
	for name, metadata := range map[string]message.Metadata{"few": few, "sixteen": sixteen, "many": many, "none": {}} {
		msg, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(map[string]any{
			redisstream.UUIDHeaderKey: "u", "payload": "p", "metadata": string(encodeMetadata(metadata)),
		})
		if err != nil {
			t.Fatal(name, err)
		}
		if len(msg.Metadata) != len(metadata) {
			t.Fatalf("%s: %d of %d keys", name, len(msg.Metadata), len(metadata))
		}
		for k, v := range metadata {
			if msg.Metadata[k] != v {
				t.Fatalf("%s: key %.40q has %.40q, not %.40q", name, k, msg.Metadata[k], v)
			}
		}
	}
}
