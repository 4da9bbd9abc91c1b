// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package caddyknock

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestComments: every file has its licence, every exported symbol and every field
// of a configuration a comment.
func TestComments(t *testing.T) {
	files, symbols := 0, 0
	set := token.NewFileSet()
	complain := func(pos token.Pos, what string) { t.Errorf("%s: %s has no comment", set.Position(pos), what) }
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "dist" || d.Name() == "vendor"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if !bytes.Contains(text[:min(300, len(text))], []byte("SPDX-License-Identifier: Apache-2.0")) {
			t.Errorf("%s has no licence", path)
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) {
					symbols++
					if d.Doc == nil {
						complain(d.Pos(), d.Name.Name)
					}
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					symbols += checkSpec(path, d, spec, complain)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 200 || symbols < 500 {
		t.Errorf("only %d files and %d symbols were seen", files, symbols)
	}
}

// configures reports whether a file's structs are those of Caddy modules.
func configures(path string) bool {
	dir := filepath.ToSlash(filepath.Dir(path))
	return dir == "knockcore/knockapp" || dir == "l4knock" || dir == "httpknock" || dir == "firewallmod"
}

func exportedReceiver(list *ast.FieldList) bool {
	typ := list.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}

// checkSpec looks at a declaration of types, constants or variables. Groups may
// have one comment for all, or one behind each.
func checkSpec(path string, d *ast.GenDecl, spec ast.Spec, complain func(token.Pos, string)) (symbols int) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return 0
		}
		symbols++
		if d.Doc == nil && s.Doc == nil && s.Comment == nil {
			complain(s.Pos(), s.Name.Name)
		}
		// Fields that a configuration can set are documented by their comments.
		if st, ok := s.Type.(*ast.StructType); ok {
			for i, f := range st.Fields.List {
				if !configures(path) || f.Tag == nil || !strings.Contains(f.Tag.Value, "json:") || len(f.Names) == 0 || !f.Names[0].IsExported() {
					continue
				}
				symbols++
				if f.Doc == nil && f.Comment == nil && (i == 0 || st.Fields.List[i-1].Doc == nil) {
					complain(f.Pos(), s.Name.Name+"."+f.Names[0].Name)
				}
			}
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() {
				symbols++
				if d.Doc == nil && s.Doc == nil && s.Comment == nil {
					complain(s.Pos(), name.Name)
				}
			}
		}
	}
	return symbols
}

var testRow = regexp.MustCompile("`([\\w/]+) (Test\\w+)`")

// TestREADMEProofs: the tests that the README names as proofs exist.
func TestREADMEProofs(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	proofs := testRow.FindAllStringSubmatch(string(text), -1)
	if len(proofs) < 15 {
		t.Errorf("only %d proofs", len(proofs))
	}
	for _, proof := range proofs {
		files, _ := filepath.Glob(filepath.Join(proof[1], "*_test.go"))
		found := false
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(source, []byte("func "+proof[2]+"(t *testing.T)"))
		}
		if !found {
			t.Errorf("README: there is no %s in %s", proof[2], proof[1])
		}
	}
}
