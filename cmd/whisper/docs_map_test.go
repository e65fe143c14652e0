package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheMapOfTheCodeIsTrue: each file that docs/design.md names exists, and each function that it names beside a file is
// declared there.
func TestTheMapOfTheCodeIsTrue(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	// `folder/file.go` `Type.method`; the function may be left out.
	mentions := regexp.MustCompile("`([a-z_/0-9]+/[a-z_0-9]+\\.go)`(?: `([A-Za-z.]+)`)?").FindAllStringSubmatch(string(page), -1)
	functions := 0
	for _, m := range mentions {
		file, function := m[1], m[2]
		path := filepath.Join(root, filepath.FromSlash(file))
		if _, err := os.Stat(path); err != nil {
			// Where a paragraph is about consumers, it leaves the folder out.
			path = filepath.Join(root, "consumers", filepath.FromSlash(file))
		}
		declared, err := functionsOf(path)
		if err != nil {
			t.Errorf("the page names %s: %v", file, err)
			continue
		}
		if function == "" {
			continue
		}
		functions++
		if !declared[function] {
			t.Errorf("the page says that %s is in %s", function, file)
		}
	}
	if functions < 20 {
		t.Errorf("found %d functions on the page: its form has changed, and this test reads nothing", functions)
	}
}

// functionsOf are the functions that a file declares, methods as Type.method.
func functionsOf(path string) (map[string]bool, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	all := map[string]bool{}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := f.Name.Name
		if f.Recv != nil {
			of := f.Recv.List[0].Type
			if star, ok := of.(*ast.StarExpr); ok {
				of = star.X
			}
			if id, ok := of.(*ast.Ident); ok {
				name = strings.Join([]string{id.Name, name}, ".")
			}
		}
		all[name] = true
	}
	return all, nil
}
