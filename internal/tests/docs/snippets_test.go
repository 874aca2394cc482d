package docs

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// known are the packages that snippets may use without an import, by name.
var known = map[string]string{
	"buffstreams": module, "route": module + "/route", "pool": module + "/pool", "store": module + "/store",
	"framing": module + "/framing", "hooks": module + "/hooks", "metrics": module + "/metrics", "tracing": module + "/tracing",
	"monitor": module + "/monitor", "engines": module + "/engines", "prometheus": "github.com/prometheus/client_golang/prometheus",
	"batch": module + "/batch", "cqrsx": module + "/cqrsx",
	"outbox": module + "/storage/outbox", "dedupe": module + "/storage/dedupe",
	"watermill": watermill, "message": watermill + "/message", "middleware": watermill + "/message/router/middleware",
	"cqrs": watermill + "/components/cqrs", "requestreply": watermill + "/components/requestreply",
	"context": "", "errors": "", "fmt": "", "log": "", "net": "", "os": "", "time": "", "strings": "", "netip": "net/netip", "http": "net/http",
	"syscall": "", "unix": "golang.org/x/sys/unix", "nats": module + "/engines/nats", "kafka": module + "/engines/kafka",
}

const (
	module    = "github.com/buffstreams/watermill-buffstreams"
	watermill = "github.com/ThreeDotsLabs/watermill"
)

// given is what every snippet may use without declaring it.
const given = `
type Add struct{ A, B int }
type Sum struct{ Sum int }

func insert(context.Context, []*message.Message) error { return nil }

var (
	ctx        = context.Background()
	logger     watermill.LoggerAdapter
	payload    []byte
	err        error
	manager    *buffstreams.Manager
	box        *outbox.Outbox
	pub        message.Publisher
	sub        message.Subscriber
	publisher  *buffstreams.Publisher
	subscriber *buffstreams.Subscriber
	router     *message.Router
	messages   <-chan *message.Message
)
`

// snippet is a block of a document.
type snippet struct {
	file, text string
	line       int
}

// blocks returns the blocks of all documents that a word opens: "go", "sh".
func blocks(t *testing.T, words ...string) (found []snippet) {
	t.Helper()
	for _, file := range documents(t) {
		var open *snippet
		for i, line := range strings.Split(read(t, file), "\n") {
			fence, isFence := strings.CutPrefix(strings.TrimLeft(line, " "), "```") // a list indents it
			switch {
			case isFence && open != nil:
				found, open = append(found, *open), nil
			case isFence && slices.Contains(words, fence):
				open = &snippet{file: file, line: i + 2}
			case isFence: // of another kind, up to its end
				open = nil
			case open != nil:
				open.text += line + "\n"
			}
		}
	}
	require.NotEmpty(t, found)
	return found
}

// documents are the Markdown files that users read, from the root.
func documents(t *testing.T) (files []string) {
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md"} {
		found, err := filepath.Glob(filepath.Join(root(t), pattern))
		require.NoError(t, err)
		for _, f := range found {
			name, err := filepath.Rel(root(t), f)
			require.NoError(t, err)
			files = append(files, filepath.ToSlash(name))
		}
	}
	return files
}

// TestSnippets_Compile holds that every Go block compiles: a program by itself, anything else with what is given.
func TestSnippets_Compile(t *testing.T) {
	replaced := map[string]string{} // files that are not on disk, but compiled
	var packages []string
	for i, s := range blocks(t, "go") {
		dir := filepath.Join(root(t), "internal", "tests", "docs", fmt.Sprintf("snippet%d", i))
		source := filepath.Join(t.TempDir(), "snippet.go")
		require.NoError(t, os.WriteFile(source, []byte(s.program(t)), 0o600))
		replaced[filepath.Join(dir, "snippet.go")] = source
		packages = append(packages, "./internal/tests/docs/"+filepath.Base(dir))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	require.NoError(t, err)
	list := filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(list, overlay, 0o600))
	run(t, "go", append([]string{"build", "-overlay", list}, packages...)...)
}

// program returns the snippet as a file that can be compiled; its errors have the lines of the document.
func (s snippet) program(t *testing.T) string {
	t.Helper()
	place := fmt.Sprintf("//line %s:%d\n", s.file, s.line)
	if strings.HasPrefix(s.text, "package ") {
		return place + s.text
	}
	code := regexp.MustCompile(`(?m)//.*$`).ReplaceAllString(s.text, "")
	file := "package snippet\n" + imports(given+code) + given
	if _, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+s.text, 0); err == nil {
		return file + place + s.text // declarations
	}
	body, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc f() {\n"+s.text+"\n}", 0)
	require.NoError(t, err, "%s:%d", s.file, s.line)
	return file + "func _() {\n" + place + s.text + used(body) + "}\n"
}

// imports declares the known packages that a text uses.
func imports(text string) string {
	var b strings.Builder
	for name, path := range known {
		if path == "" {
			path = name
		}
		if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(text) {
			fmt.Fprintf(&b, "import %s %q\n", name, path)
		}
	}
	return b.String()
}

// used makes use of the names that the body of a function declares.
func used(file *ast.File) string {
	var b strings.Builder
	for _, statement := range file.Decls[0].(*ast.FuncDecl).Body.List {
		if a, ok := statement.(*ast.AssignStmt); ok && a.Tok == token.DEFINE {
			for _, left := range a.Lhs {
				if name := left.(*ast.Ident).Name; name != "_" {
					fmt.Fprintf(&b, "_ = %s\n", name)
				}
			}
		}
	}
	return b.String()
}

// TestSnippets_WouldNotCompile: the test above proves nothing if nothing could fail it.
func TestSnippets_WouldNotCompile(t *testing.T) {
	for _, text := range []string{"publisher.Publishes()\n", "x := buffstreams.SubscriberConfig{Nothing: 1}\n", "func f() int {}\n"} {
		s := snippet{file: "x.md", line: 1, text: text}
		source := filepath.Join(t.TempDir(), "snippet.go")
		require.NoError(t, os.WriteFile(source, []byte(s.program(t)), 0o600))
		_, err := try(t, "go", "vet", source)
		require.Error(t, err, text)
	}
}
