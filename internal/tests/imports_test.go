package tests

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rooms are the packages of the library from top to bottom: each imports only what stands below it.
var rooms = []string{
	"", "/outbox", "/pool", "/internal/session", "/internal/dispatch", "/framing", "/proto", "/internal/buffers",
}

// forbidden says what a room must know nothing of, besides the rooms above it.
var forbidden = map[string][]string{
	"/outbox":            {"net", "github.com/ThreeDotsLabs/watermill/message", "/pool", "/internal/session", "/internal/dispatch", "/framing"},
	"/pool":              {"github.com/ThreeDotsLabs/watermill/message"},
	"/internal/session":  {"net", "sync", "os", "github.com/ThreeDotsLabs/watermill"},
	"/internal/dispatch": {"net", "os", "github.com/ThreeDotsLabs/watermill"},
	"/framing":           {"net", "sync", "github.com/ThreeDotsLabs/watermill"},
}

// TestImportsPointDown holds the house of docs/design.md.
func TestImportsPointDown(t *testing.T) {
	const module = "github.com/buffstreams/watermill-buffstreams"
	for i, room := range rooms {
		out, err := exec.Command("go", "list", "-json=Imports", module+room).Output()
		require.NoError(t, err)
		var listed struct{ Imports []string }
		require.NoError(t, json.Unmarshal(out, &listed))
		bad := map[string]bool{}
		for _, above := range rooms[:i] {
			bad[module+above] = true
		}
		for _, f := range forbidden[room] {
			if strings.HasPrefix(f, "/") {
				f = module + f
			}
			bad[f] = true
		}
		for _, imported := range listed.Imports {
			require.False(t, bad[imported], "%s must not import %s", module+room, imported)
		}
	}
}
