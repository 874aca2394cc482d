package mutants

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// omission is one change that can be switched on while the tests run: a statement is left out, or a condition is fixed.
type omission struct {
	file string // from the root
	line int
	what string // "left out", "always" or "never"
	text string
}

// omitPackage is what rewritten code imports; only the overlay has it.
const omitPackage = "internal/omit"

// rewriter puts a call before each statement that can be left out, and around each condition of an if.
type rewriter struct {
	all    []omission // their numbers are their places
	file   string
	set    *token.FileSet
	source []byte
	edits  []edit // of this file
}

type edit struct {
	at   int
	ends bool // what ends at a place comes before what begins there
	text string
}

// rewrite returns what a file becomes. Its lines keep their numbers.
func (r *rewriter) rewrite(t *testing.T, file string) string {
	var err error
	r.file, r.set, r.edits = file, token.NewFileSet(), nil
	r.source, err = os.ReadFile(filepath.Join(root(t), file))
	require.NoError(t, err)
	parsed, err := parser.ParseFile(r.set, file, r.source, parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			ast.Inspect(f.Body, r.visit)
		}
	}
	if len(r.edits) == 0 {
		return string(r.source)
	}
	r.edits = append(r.edits, edit{r.offset(parsed.Name.End()), true, fmt.Sprintf("; import %q", module+"/"+omitPackage)})
	slices.SortStableFunc(r.edits, func(a, b edit) int {
		if a.at != b.at || a.ends == b.ends {
			return cmp.Compare(a.at, b.at)
		}
		if a.ends {
			return -1
		}
		return 1
	})
	var text strings.Builder
	last := 0
	for _, e := range r.edits {
		text.Write(r.source[last:e.at])
		text.WriteString(e.text)
		last = e.at
	}
	text.Write(r.source[last:])
	return text.String()
}

func (r *rewriter) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IfStmt:
		always, never := r.add(n.Cond, "always"), r.add(n.Cond, "never")
		r.begins(n.Cond, fmt.Sprintf("omit.Condition(%d, %d, ", always, never))
		r.ends(n.Cond, ")")
	case *ast.BlockStmt:
		r.statements(n.List)
	case *ast.CaseClause:
		r.statements(n.Body)
	case *ast.CommClause:
		r.statements(n.Body)
	}
	return true
}

func (r *rewriter) statements(list []ast.Stmt) {
	for _, s := range list {
		if canBeLeftOut(s) {
			r.begins(s, fmt.Sprintf("if omit.Statement(%d) { ", r.add(s, "left out")))
			r.ends(s, " }")
		}
	}
}

// canBeLeftOut says whether the code still compiles without a statement, and can do something else than hang.
func canBeLeftOut(s ast.Stmt) bool {
	var call ast.Expr
	switch s := s.(type) {
	case *ast.AssignStmt:
		return s.Tok != token.DEFINE
	case *ast.IncDecStmt, *ast.SendStmt, *ast.GoStmt:
		return true
	case *ast.DeferStmt:
		call = s.Call.Fun
	case *ast.ExprStmt:
		if c, ok := s.X.(*ast.CallExpr); ok {
			call = c.Fun
		}
	default:
		return false
	}
	switch f := call.(type) {
	case *ast.Ident:
		return f.Name != "panic"
	case *ast.SelectorExpr:
		return !strings.HasSuffix(strings.ToLower(f.Sel.Name), "lock")
	}
	return true
}

func (r *rewriter) add(n ast.Node, what string) (number int) {
	text := strings.Join(strings.Fields(string(r.source[r.offset(n.Pos()):r.offset(n.End())])), " ")
	r.all = append(r.all, omission{r.file, r.set.Position(n.Pos()).Line, what, text[:min(len(text), 100)]})
	return len(r.all) - 1
}

func (r *rewriter) begins(n ast.Node, text string) {
	r.edits = append(r.edits, edit{r.offset(n.Pos()), false, text})
}

// ends puts text behind a node, before that of the nodes around it, which were visited before.
func (r *rewriter) ends(n ast.Node, text string) {
	r.edits = slices.Insert(r.edits, 0, edit{r.offset(n.End()), true, text})
}

func (r *rewriter) offset(p token.Pos) int { return r.set.Position(p).Offset }
