package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestComponents_TableIsComplete holds that docs/watermill.md has a row for each component, middleware and plugin of the
// Watermill that is used, and that each test it names exists.
func TestComponents_TableIsComplete(t *testing.T) {
	page := read(t, "docs/watermill.md")
	rows := regexp.MustCompile(`(?m)^\| (.+?) \| (.*?) \|.*\|$`).FindAllStringSubmatch(page, -1)
	have := testsIn(t, "internal/tests/components")
	var names strings.Builder
	tests := 0
	for _, row := range rows {
		for _, name := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(row[2], -1) {
			require.Contains(t, have, name[1], "%s names a test that does not exist", row[1])
			delete(have, name[1])
			tests++
		}
		names.WriteString(row[1] + "\n")
	}
	require.Greater(t, tests, 30)
	require.Empty(t, have, "tests that no row names")
	for _, c := range upstream(t) {
		require.Contains(t, names.String(), "`"+c+"`", "Watermill has a component without a row")
	}
}

// upstream are the names of Watermill's components, middlewares and plugins.
func upstream(t *testing.T) (names []string) {
	dir := strings.TrimSpace(run(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/ThreeDotsLabs/watermill"))
	for _, pattern := range []string{"components/*", "message/router/middleware/*.go", "message/router/plugin/*.go"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		for _, f := range found {
			if !strings.HasSuffix(f, "_test.go") {
				names = append(names, strings.TrimSuffix(filepath.Base(f), ".go"))
			}
		}
	}
	require.Greater(t, len(names), 15)
	return names
}

// testsIn returns the names of the tests of a package.
func testsIn(t *testing.T, dir string) map[string]bool {
	files, err := filepath.Glob(filepath.Join(root(t), dir, "*_test.go"))
	require.NoError(t, err)
	names := map[string]bool{}
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				names[f.Name.Name] = true
			}
		}
	}
	require.NotEmpty(t, names)
	return names
}
