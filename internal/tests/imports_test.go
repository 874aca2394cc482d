package tests

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const library = "github.com/buffstreams/watermill-buffstreams"

// rooms are the packages of the library from top to bottom: each imports only what stands below it.
var rooms = []string{
	"", "/pool", "/internal/session", "/internal/dispatch", "/framing", "/proto", "/internal/buffers", "/store",
}

// storageRooms are the packages of the module storage.
var storageRooms = []string{"/storage/outbox", "/storage/dedupe", "/storage/internal/boltfile"}

// forbidden says what a room must know nothing of, besides the rooms above it.
var forbidden = map[string][]string{
	"/storage/outbox":    {"net", "github.com/ThreeDotsLabs/watermill"},
	"/storage/dedupe":    {"net", "github.com/ThreeDotsLabs/watermill"},
	"/pool":              {"github.com/ThreeDotsLabs/watermill/message"},
	"/internal/session":  {"net", "sync", "os", "github.com/ThreeDotsLabs/watermill"},
	"/internal/dispatch": {"net", "os", "github.com/ThreeDotsLabs/watermill"},
	"/framing":           {"net", "sync", "github.com/ThreeDotsLabs/watermill"},
}

// TestImportsPointDown holds the house of docs/design.md.
func TestImportsPointDown(t *testing.T) {
	for i, room := range rooms {
		bad := forbiddenTo(room)
		for _, above := range rooms[:i] {
			bad[library+above] = true
		}
		for _, imported := range imports(t, room) {
			require.False(t, bad[imported], "%s must not import %s", library+room, imported)
			require.False(t, strings.HasPrefix(imported, library+"/storage"), "%s must not import %s", library+room, imported)
		}
	}
}

// TestImports_StoreIsALeaf: who implements package store needs nothing of the library but that.
func TestImports_StoreIsALeaf(t *testing.T) {
	for _, imported := range imports(t, "/store") {
		require.False(t, strings.Contains(imported, "."), "package store must not import %s", imported)
	}
}

// TestImports_StorageKnowsStoreAlone: of the core, storage has package store and nothing else.
func TestImports_StorageKnowsStoreAlone(t *testing.T) {
	for _, room := range storageRooms {
		bad := forbiddenTo(room)
		for _, imported := range imports(t, room) {
			require.False(t, bad[imported], "%s must not import %s", library+room, imported)
			if imported == library || strings.HasPrefix(imported, library+"/") {
				inside := imported == library+"/store" || strings.HasPrefix(imported, library+"/storage/")
				require.True(t, inside, "%s must not import %s", library+room, imported)
			}
		}
	}
}

func forbiddenTo(room string) map[string]bool {
	bad := map[string]bool{}
	for _, f := range forbidden[room] {
		bad[f] = true
	}
	return bad
}

// imports returns what a room imports itself, without its tests.
func imports(t *testing.T, room string) []string {
	out, err := exec.Command("go", "list", "-json=Imports", library+room).Output()
	require.NoError(t, err)
	var listed struct{ Imports []string }
	require.NoError(t, json.Unmarshal(out, &listed))
	return listed.Imports
}

// TestImports_WhatTheCoreCompiles: a program that imports the root alone compiles the standard library, watermill with what
// that needs, protobuf, a backoff library, and the core. No storage engine is among them.
func TestImports_WhatTheCoreCompiles(t *testing.T) {
	const watermill = "github.com/ThreeDotsLabs/watermill"
	compiled := modules(t, library)
	allowed := modules(t, watermill+"/message")
	for _, module := range []string{library, watermill, "github.com/cenkalti/backoff/v5", "google.golang.org/protobuf"} {
		require.Contains(t, compiled, module)
		allowed[module] = true
	}
	for module := range compiled {
		require.True(t, allowed[module], "the core must not need %s", module)
	}
	// So that the test can fail: what storage compiles is more.
	require.Contains(t, modules(t, library+"/storage/outbox"), "github.com/hashicorp/raft-wal")
	require.Contains(t, modules(t, library+"/storage/dedupe"), "go.etcd.io/bbolt")
}

// modules returns the modules with packages that pkg needs, its own included, without the standard library.
func modules(t *testing.T, pkg string) map[string]bool {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", pkg).Output()
	require.NoError(t, err)
	all := map[string]bool{}
	for _, module := range strings.Fields(string(out)) {
		all[module] = true
	}
	return all
}
