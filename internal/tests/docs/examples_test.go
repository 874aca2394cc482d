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

// shown are the public packages whose constructors and hooks have examples in their documentation.
var shown = []string{".", "batch", "cqrsx", "framing", "pool", "route", "storage/dedupe", "storage/outbox"}

// TestExamples_ShowEachConstructorAndHook lists the exported constructors without an Example of their name, and the fields of
// function type without an Example that sets them.
func TestExamples_ShowEachConstructorAndHook(t *testing.T) {
	total := 0
	for _, dir := range shown {
		p := parsePackage(t, dir)
		for _, c := range p.constructors {
			if total++; !p.examples[c] {
				t.Errorf("%s: there is no Example%s", dir, c)
			}
		}
		for _, h := range p.hooks {
			if total++; !p.set[h] {
				t.Errorf("%s: no Example sets %s", dir, h)
			}
		}
	}
	require.Greater(t, total, 35)
}

// TestExamples_ShowEachHookInterface holds that the example of package hooks implements all of them.
func TestExamples_ShowEachHookInterface(t *testing.T) {
	example := read(t, "hooks/example_test.go")
	files, err := filepath.Glob(filepath.Join(root(t), "hooks", "*.go"))
	require.NoError(t, err)
	declared := 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^type (\w+Hook) interface`).FindAllStringSubmatch(read(t, "hooks/"+filepath.Base(f)), -1) {
			declared++
			require.Contains(t, example, "_ hooks."+m[1]+" ")
		}
	}
	require.Greater(t, declared, 15)
}

// parsed is what a package exports, and what its examples show.
type parsed struct {
	constructors, hooks []string
	examples, set       map[string]bool
	funcTypes           map[string]bool
}

func parsePackage(t *testing.T, dir string) *parsed {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), dir, "*.go"))
	require.NoError(t, err)
	p := &parsed{examples: map[string]bool{}, set: map[string]bool{}, funcTypes: map[string]bool{}}
	var structs []*ast.TypeSpec
	for _, f := range files {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		test := strings.HasSuffix(f, "_test.go")
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				p.addFunc(d, test)
			case *ast.GenDecl:
				if !test {
					structs = append(structs, p.addTypes(d)...)
				}
			}
		}
	}
	for _, s := range structs {
		p.addHooks(s)
	}
	return p
}

// addFunc adds a constructor: an exported function that returns a pointer, an interface or a function, and perhaps an error;
// or what an example shows.
func (p *parsed) addFunc(f *ast.FuncDecl, test bool) {
	name := f.Name.Name
	if test && strings.HasPrefix(name, "Example") {
		p.examples[strings.TrimPrefix(name, "Example")] = true
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if literal, ok := n.(*ast.CompositeLit); ok {
				p.addSet(literal)
			}
			return true
		})
	}
	if test || f.Recv != nil || !ast.IsExported(name) {
		return
	}
	for _, verb := range []string{"New", "Open", "Dial", "Listen", "Start", "Run"} {
		if strings.HasPrefix(name, verb) {
			p.constructors = append(p.constructors, name)
			return
		}
	}
}

// addSet notes the fields that a literal sets, as Type.Field.
func (p *parsed) addSet(literal *ast.CompositeLit) {
	typ, ok := literal.Type.(*ast.SelectorExpr)
	if !ok {
		return
	}
	for _, e := range literal.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok {
				p.set[typ.Sel.Name+"."+key.Name] = true
			}
		}
	}
}

// addTypes notes function types, and returns the exported structs that are configurations.
func (p *parsed) addTypes(d *ast.GenDecl) (configurations []*ast.TypeSpec) {
	for _, spec := range d.Specs {
		s, ok := spec.(*ast.TypeSpec)
		if !ok || !s.Name.IsExported() {
			continue
		}
		switch s.Type.(type) {
		case *ast.FuncType:
			p.funcTypes[s.Name.Name] = true
		case *ast.StructType:
			if strings.HasSuffix(s.Name.Name, "Config") || s.Name.Name == "TLSFiles" {
				configurations = append(configurations, s)
			}
		}
	}
	return configurations
}

// addHooks adds the exported fields of a configuration that are functions.
func (p *parsed) addHooks(s *ast.TypeSpec) {
	for _, field := range s.Type.(*ast.StructType).Fields.List {
		isFunc := false
		switch typ := field.Type.(type) {
		case *ast.FuncType:
			isFunc = true
		case *ast.Ident:
			isFunc = p.funcTypes[typ.Name]
		case *ast.SelectorExpr: // such as pool.DialFunc
			isFunc = strings.HasSuffix(typ.Sel.Name, "Func")
		}
		for _, name := range field.Names {
			if isFunc && name.IsExported() {
				p.hooks = append(p.hooks, s.Name.Name+"."+name.Name)
			}
		}
	}
}
