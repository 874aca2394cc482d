package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const troubleshooting = "docs/troubleshooting.md"

// explained are the directories whose errors and log lines docs/troubleshooting.md explains, without those below them.
// notExplained are within: programs, tests, and the modules that have a page of their own.
var notExplained = []string{
	"benchmarks", "bridge", "clients", "cmd", "docs", "engines", "examples", "internal/acked/acktest", "internal/acked/sim",
	"internal/sim", "internal/testkit", "internal/tests", "metrics", "monitor", "tracing", "storage/internal/testenv", "testdata", "bin",
}

// logHelpers are functions of the library that log one of their arguments.
var logHelpers = []string{"log", "evictLocked"}

// vocabulary is what the code says: exported errors as package.Name, and log lines.
type vocabulary struct{ errors, lines map[string]bool }

// TestTroubleshooting_IsComplete holds that every exported error and every log line is explained, and nothing else is.
func TestTroubleshooting_IsComplete(t *testing.T) {
	said := spoken(t)
	require.Greater(t, len(said.errors), 50)
	require.Greater(t, len(said.lines), 45)
	page := read(t, troubleshooting)
	rows := regexp.MustCompile(`(?m)^\| (.+)$`).FindAllStringSubmatch(page, -1)
	explainedErrors, explainedLines := map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		cells := strings.Split(row[1], " | ")
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
			explainedErrors[quoted[1]] = true
		}
		if len(cells) > 2 && (cells[0] == "Error" || cells[0] == "Info") {
			explainedLines[cells[0]+": "+strings.Trim(cells[1], "`")] = true
		}
	}
	compare(t, said.errors, explainedErrors, "exported error")
	compare(t, said.lines, explainedLines, "log line")
}

// compare fails for each word that only one side has.
func compare(t *testing.T, said, explained map[string]bool, what string) {
	for w := range said {
		if !explained[w] {
			t.Errorf("%s is not in %s: %s; add a row with its cause and what to do", what, troubleshooting, w)
		}
	}
	for w := range explained {
		if !said[w] {
			t.Errorf("%s of %s is not in the code any more: %s; take its row out", what, troubleshooting, w)
		}
	}
}

// spoken reads the code of the library.
func spoken(t *testing.T) vocabulary {
	said := vocabulary{map[string]bool{}, map[string]bool{}}
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		name, relative := d.Name(), strings.TrimPrefix(filepath.ToSlash(path), filepath.ToSlash(root(t))+"/")
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains(notExplained, relative) || strings.HasPrefix(name, ".") || name == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		said.addLines(file)
		if !strings.HasPrefix(relative, "internal/") && !strings.Contains(relative, "/internal/") {
			said.addErrors(file)
		}
		return nil
	})
	require.NoError(t, err)
	return said
}

// addErrors adds the exported sentinels and error types of a file.
func (v vocabulary) addErrors(file *ast.File) {
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if g.Tok == token.VAR && strings.HasPrefix(n.Name, "Err") {
						v.errors[file.Name.Name+"."+n.Name] = true
					}
				}
			case *ast.TypeSpec:
				if n := s.Name.Name; ast.IsExported(n) && (strings.HasSuffix(n, "Error") || n == "Errors") {
					v.errors[file.Name.Name+"."+n] = true
				}
			}
		}
	}
}

// addLines adds what a file logs at Info and above.
func (v vocabulary) addLines(file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		s, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch name := s.Sel.Name; {
		case (name == "Error" || name == "Info") && len(call.Args) >= 2:
			if line, ok := literal(call.Args[0]); ok {
				v.lines[name+": "+line] = true
			}
		case slices.Contains(logHelpers, name):
			for _, a := range call.Args {
				if line, ok := literal(a); ok && strings.Contains(line, " ") {
					v.lines["Info: "+line] = true
				}
			}
		}
		return true
	})
}

// literal returns a string literal, or several that are added.
func literal(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, ok := literal(e.X)
		right, also := literal(e.Y)
		return left + right, ok && also
	}
	return "", false
}

// TestLinks_LeadSomewhere holds that every relative link of a document leads to a file.
func TestLinks_LeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, doc := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, doc), -1) {
			_, err := os.Stat(filepath.Join(root(t), filepath.Dir(doc), m[1]))
			require.NoError(t, err, "%s links to %s", doc, m[1])
		}
	}
}

// TestIndex_HasEveryDocument holds that docs/README.md leads to every document.
func TestIndex_HasEveryDocument(t *testing.T) {
	index := read(t, "docs/README.md")
	for _, doc := range documents(t) {
		if name, ok := strings.CutPrefix(doc, "docs/"); ok && name != "README.md" {
			require.Contains(t, index, "("+name+")", "docs/README.md has no row for it")
		}
	}
}

// TestReadme_IsShort holds its length, which is what a newcomer reads in one go.
func TestReadme_IsShort(t *testing.T) {
	require.Less(t, strings.Count(read(t, "README.md"), "\n"), 150)
}

// TestNames_Exist holds that every test that a document names exists.
func TestNames_Exist(t *testing.T) {
	exist := map[string]bool{}
	for _, n := range testNames(t) {
		exist[n] = true
	}
	named := 0
	for _, doc := range documents(t) {
		for _, m := range regexp.MustCompile(`\b((Test|Fuzz)[A-Z]\w+)(\W)`).FindAllStringSubmatch(read(t, doc), -1) {
			if m[3] == "*" { // a family
				continue
			}
			named++
			if !exist[m[1]] && !strings.HasSuffix(m[1], "_") {
				t.Errorf("%s names %s, which does not exist", doc, m[1])
			}
		}
	}
	require.Greater(t, named, 100)
}
