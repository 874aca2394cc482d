package postgres

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

func TestCut_BoundsWhatAStatementStores(t *testing.T) {
	of := func(sizes ...int) (messages []*message.Message) {
		for _, size := range sizes {
			messages = append(messages, message.NewMessage("", make([]byte, size)))
		}
		return messages
	}
	for want, messages := range map[int][]*message.Message{
		0: nil, 1: of(3*statementBytes, 1), 2: of(statementBytes-1, 1, 1), 3: of(1, 1, 1, 1, 1),
	} {
		if got := cut(messages, 3); got != want {
			t.Errorf("%d messages, not %d", got, want)
		}
	}
}

func TestMetadata_IsJSON(t *testing.T) {
	for _, metadata := range []message.Metadata{
		nil, {}, {"k": "v"}, {"": "", "a": "\"", "\\": "\n\t\x00\x7f", "ключ": "значение <&>"}, {driver.IDHeader: "of another program", "k": "v"},
	} {
		for _, id := range []string{"", "redis/1"} {
			want := message.Metadata{}
			maps.Copy(want, metadata)
			if id != "" {
				want[driver.IDHeader] = id
			}
			got := message.Metadata{}
			encoded := appendMetadata([]byte("before"), metadata, id)
			if err := json.Unmarshal(encoded[len("before"):], &got); err != nil || !maps.Equal(got, want) {
				t.Errorf("%s is %v (%v), not %v", encoded, got, err, want)
			}
		}
	}
}
