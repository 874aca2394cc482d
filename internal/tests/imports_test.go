package tests

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/buffstreams/watermill-buffstreams"

// room is what a package may know. Lists are words; tests may know more.
type room struct {
	own    string // packages of this repository that it may import
	others string // other people's packages that it may import: see others
	never  string // packages of the standard library, with those below them, that it must not import
}

// Words for what many rows say.
const (
	inout    = "net os syscall crypto/tls" // sockets, files, processes
	public   = "route pool store hooks framing batch storage/outbox storage/dedupe"
	engines  = " engines engines/bridge engines/amqp engines/kafka engines/nats engines/outboxes engines/postgres engines/redis"
	anything = "*"
)

// rooms is the house of docs/design.md, with every package of the library and of storage: a package that is not here, or
// an import that is not in its row, fails the test. A new row is a decision: the package gets what its job needs.
var rooms = map[string]room{
	// Public.
	"": {
		own: "route internal/policy pool store hooks framing internal/acked/sender internal/acked/receiver internal/session internal/dispatch " +
			"internal/flow internal/flush internal/netio internal/buffers internal/hook",
		others: "watermill watermill/message protobuf backoff uuid",
		never:  "os/exec net/http syscall",
	},
	"route":   {own: "internal/netio", others: "backoff", never: "os crypto/tls syscall"},
	"pool":    {own: "framing hooks internal/flush internal/netio internal/buffers internal/hook", others: "watermill backoff", never: "os/exec net/http"},
	"batch":   {own: "", others: "watermill watermill/message", never: inout},
	"hooks":   {own: "", others: "", never: inout + " sync"},
	"store":   {own: "", others: "", never: inout + " sync"},
	"framing": {own: "internal/buffers", others: "", never: inout + " sync time"},

	// The module storage: of the core it knows store alone.
	"storage/outbox":            {own: "store hooks storage/internal/boltfile", others: "raft-wal", never: "net os/exec"},
	"storage/dedupe":            {own: "store storage/internal/boltfile", others: "bbolt", never: "net os/exec"},
	"storage/internal/boltfile": {own: "", others: "bbolt", never: "net os/exec"},

	// The acked protocol: two halves that do not know each other, above state machines.
	"internal/acked/sender": {
		own: "store hooks framing internal/session internal/flow internal/wire internal/flush internal/netio " +
			"internal/buffers internal/hook",
		others: "watermill backoff", never: "os net/http",
	},
	"internal/acked/receiver": {
		own: "store hooks framing internal/session internal/dispatch internal/flow internal/wire internal/buffers internal/flush internal/netio " +
			"internal/buffers internal/hook",
		others: "watermill", never: "os/exec net/http",
	},
	"internal/policy":   {own: "route", others: "", never: inout + " sync"},
	"internal/session":  {own: "store framing internal/flow internal/wire internal/buffers", others: "protobuf", never: inout + " sync"},
	"internal/dispatch": {own: "internal/flow internal/buffers", others: "", never: inout},
	"internal/flow":     {own: "", others: "", never: inout + " time"},
	"internal/wire":     {own: "", others: "protobuf", never: inout + " time"},

	// What the others stand on.
	"internal/flush":   {own: "", others: "", never: inout},
	"internal/netio":   {own: "framing internal/hook", others: "backoff", never: "os/exec net/http"},
	"internal/buffers": {own: "", others: "", never: inout},
	"internal/hook":    {own: "hooks", others: "watermill", never: inout},
}

// helpers are packages for tests: only tests, and each other, import them.
var helpers = []string{
	"internal/testkit", "internal/acked/acktest", "internal/acked/sim", "internal/acked/moves", "internal/sim",
	"storage/internal/testenv",
}

// above are modules of their own on top of the library, and what they may import besides the root and themselves: its
// public packages, nothing of its insides. Only the tests may know everything.
var above = map[string]string{
	"cmd":            public + " monitor" + engines,
	"cqrsx":          "",
	"benchmarks":     public + engines,
	"examples":       public + " cqrsx" + engines,
	"engines":        public,
	"metrics":        "store hooks",
	"tracing":        "store hooks",
	"monitor":        "store hooks",
	"internal/tests": anything,
}

// others are the words for other people's packages. A word covers what is below it, but for one that ends in $.
var others = map[string]string{
	"watermill":         "github.com/ThreeDotsLabs/watermill$", // its logger, which rooms below the root may know
	"watermill/message": "github.com/ThreeDotsLabs/watermill/message",
	"protobuf":          "google.golang.org/protobuf",
	"backoff":           "github.com/cenkalti/backoff",
	"uuid":              "github.com/google/uuid",
	"raft-wal":          "github.com/hashicorp/raft-wal",
	"bbolt":             "go.etcd.io/bbolt",
}

type listed struct {
	ImportPath string
	Imports    []string
}

// TestImports_StayInTheirRow holds the house.
func TestImports_StayInTheirRow(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range packages(t) {
		name := own(p.ImportPath)
		if of := ownModule(name); of != "" {
			checkAbove(t, name, of, p.Imports)
			continue
		}
		if slices.Contains(helpers, name) {
			continue
		}
		row, ok := rooms[name]
		if !ok {
			t.Errorf("package %q is in no row of rooms: what may it know?", name)
			continue
		}
		seen[name] = true
		for _, imported := range p.Imports {
			if why := row.refuses(imported); why != "" {
				t.Errorf("package %q imports %s: %s", name, imported, why)
			}
		}
	}
	for name := range rooms {
		if !seen[name] {
			t.Errorf("there is no package %q any more: delete its row", name)
		}
	}
}

// refuses says why a package of this row must not import another, or nothing.
func (r room) refuses(imported string) string {
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case imported == module || strings.HasPrefix(imported, module+"/"):
		if !slices.Contains(strings.Fields(r.own), own(imported)) {
			return "it is not in its row"
		}
	case strings.Contains(first, "."):
		if !slices.ContainsFunc(strings.Fields(r.others), func(word string) bool {
			return within(others[word], imported)
		}) {
			return "its row has no such word"
		}
	case slices.ContainsFunc(strings.Fields(r.never), func(pkg string) bool { return within(pkg, imported) }):
		return "its row says never"
	}
	return ""
}

func checkAbove(t *testing.T, name, of string, imports []string) {
	may := above[of]
	for _, imported := range imports {
		switch {
		case may == anything, imported == module, within(module+"/"+of, imported), !strings.HasPrefix(imported, module+"/"):
		case !slices.Contains(strings.Fields(may), own(imported)):
			t.Errorf("package %q imports %s: not one of those that %s/ may know", name, imported, of)
		}
	}
}

// within says whether an import is pkg, or below it.
func within(pkg, imported string) bool {
	if exact, ok := strings.CutSuffix(pkg, "$"); ok {
		return imported == exact
	}
	return pkg != "" && (imported == pkg || strings.HasPrefix(imported, pkg+"/"))
}

// own turns an import path of this repository into a name as in rooms.
func own(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

// ownModule returns which of the modules above has the package.
func ownModule(name string) string {
	for of := range above {
		if within(of, name) {
			return of
		}
	}
	return ""
}

// packages are all of the modules in go.work.
func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	require.NoError(t, err)
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p listed
		require.NoError(t, d.Decode(&p))
		all = append(all, p)
	}
	return all
}

// TestImports_ARowRefuses: the table proves nothing if nothing could fail it.
func TestImports_ARowRefuses(t *testing.T) {
	session := rooms["internal/session"]
	for imported, refused := range map[string]bool{
		"time": false, "sync": true, "sync/atomic": true, "net": true, "net/netip": true, "os": true,
		module + "/framing": false, module + "/internal/netio": true, module + "/internal/acked/sender": true, module: true,
		"google.golang.org/protobuf/encoding/protowire": false, "github.com/ThreeDotsLabs/watermill": true,
	} {
		require.Equal(t, refused, session.refuses(imported) != "", imported)
	}
	sender := rooms["internal/acked/sender"]
	require.Empty(t, sender.refuses("github.com/ThreeDotsLabs/watermill"))
	require.NotEmpty(t, sender.refuses("github.com/ThreeDotsLabs/watermill/message"))
	require.NotEmpty(t, sender.refuses(module+"/internal/acked/receiver"))
	for name, row := range rooms {
		for word := range strings.FieldsSeq(row.others) {
			require.Contains(t, others, word, "row %q", name)
		}
		for of := range strings.FieldsSeq(row.own) {
			require.Contains(t, rooms, of, "row %q", name)
		}
	}
}

// TestImports_WhatTheCoreCompiles: a program that imports the root alone compiles the standard library, watermill with what
// that needs, protobuf, a backoff library, and the core. No storage engine is among them.
func TestImports_WhatTheCoreCompiles(t *testing.T) {
	compiled := modules(t, module)
	allowed := modules(t, others["watermill/message"])
	for _, m := range []string{module, "github.com/ThreeDotsLabs/watermill", "github.com/cenkalti/backoff/v5", "google.golang.org/protobuf"} {
		require.Contains(t, compiled, m)
		allowed[m] = true
	}
	for m := range compiled {
		require.True(t, allowed[m], "the core must not need %s", m)
	}
	// So that the test can fail: what storage compiles is more.
	require.Contains(t, modules(t, module+"/storage/outbox"), "github.com/hashicorp/raft-wal")
	require.Contains(t, modules(t, module+"/storage/dedupe"), "go.etcd.io/bbolt")
}

// modules returns the modules with packages that pkg needs, its own included, without the standard library.
func modules(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", pkg).Output()
	require.NoError(t, err)
	all := map[string]bool{}
	for m := range strings.FieldsSeq(string(out)) {
		all[m] = true
	}
	return all
}
