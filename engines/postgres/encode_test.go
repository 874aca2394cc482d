package postgres

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

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
