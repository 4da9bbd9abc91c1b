// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package caddyknock

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
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

var testRow = regexp.MustCompile("`([\\w/-]+) ((?:Test|Fuzz)\\w+)`")

// exists reports whether a folder has the test or fuzz target.
func exists(t *testing.T, folder, name string) bool {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(folder, "*_test.go"))
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(source, []byte("func "+name+"(t *testing.T)")) || bytes.Contains(source, []byte("func "+name+"(f *testing.F)")) {
			return true
		}
	}
	return false
}

// TestREADMEProofs: the tests that the README names as proofs exist.
func TestREADMEProofs(t *testing.T) {
	proofs := testRow.FindAllStringSubmatch(readREADME(t), -1)
	if len(proofs) < 40 {
		t.Errorf("only %d proofs", len(proofs))
	}
	for _, proof := range proofs {
		if !exists(t, proof[1], proof[2]) {
			t.Errorf("README: there is no %s in %s", proof[2], proof[1])
		}
	}
	if exists(t, "l4knock", "TestThatNobodyWrote") || len(testRow.FindAllString("`l4knock TestA`, `examples/http-knock FuzzB`, `Test`", -1)) != 2 {
		t.Error("missing tests would not be found")
	}
}

func readREADME(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// methodRow is a row of the README's table of methods.
type methodRow struct{ method, modules, on, status, proof string }

func methodRows(readme string) (rows []methodRow) {
	_, table, _ := strings.Cut(readme, "| method | comes in by | Caddy on | status | proof |\n")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 7 {
			break
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !strings.HasPrefix(cells[1], "---") {
			rows = append(rows, methodRow{cells[1], cells[2], cells[3], cells[4], cells[5]})
		}
	}
	return rows
}

var word = regexp.MustCompile("`([^`]+)`")

// checkMethodRows says what is wrong with the table: rows whose cells say nothing that
// can be checked, and methods and modules that it leaves out.
func checkMethodRows(rows []methodRow) (complaints []string) {
	missing := make(map[string]bool)
	for _, m := range knockcore.AllMethods.Methods() {
		missing[m.String()] = true
	}
	for _, m := range caddy.GetModules("knock.sources") {
		missing[string(m.ID)] = true
	}
	for _, row := range rows {
		for _, m := range word.FindAllStringSubmatch(row.method, -1) {
			delete(missing, m[1])
		}
		modules := word.FindAllStringSubmatch(row.modules, -1)
		if len(modules) == 0 {
			complaints = append(complaints, row.method+": no module")
		}
		for _, m := range modules {
			delete(missing, m[1])
			if _, err := caddy.GetModule(m[1]); err != nil {
				complaints = append(complaints, err.Error())
			}
		}
		passive := strings.Contains(row.modules, "nflog") || strings.Contains(row.modules, "packet")
		switch {
		case row.on != "any" && row.on != "Linux" || passive != (row.on == "Linux"):
			complaints = append(complaints, row.modules+": not on "+row.on)
		case row.status != "vectors" && row.status != "theirs":
			complaints = append(complaints, row.modules+": status "+row.status)
		case !testRow.MatchString(row.proof):
			complaints = append(complaints, row.modules+": no proof")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		complaints = append(complaints, name+" is missing")
	}
	return complaints
}

// TestREADMEMethods: the README's table has each method and source, where it runs and
// what proves it.
func TestREADMEMethods(t *testing.T) {
	for _, complaint := range checkMethodRows(methodRows(readREADME(t))) {
		t.Errorf("README: %s", complaint)
	}
	bad := "| method | comes in by | Caddy on | status | proof |\n|---|---|---|---|---|\n| `udp` | `knock.sources.upd` | Linux | vectors | `a TestB` |\n| `http` | `http.handlers.knock` | any | done | |\n\ntext"
	got := checkMethodRows(methodRows(bad))
	if len(methodRows(bad)) != 2 || len(got) < 10 || !slices.Contains(got, "pyknock is missing") || !slices.Contains(got, "`http.handlers.knock`: status done") {
		t.Errorf("a bad table passes: %q", got)
	}
}

// TestREADMESections: the manuals of the module folders have the sections of a manual
// page, in order.
func TestREADMESections(t *testing.T) {
	for _, folder := range []string{"knockcore/knockapp", "l4knock", "httpknock", "firewallmod"} {
		text, err := os.ReadFile(filepath.Join(folder, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		if missing := missingSections(string(text)); len(missing) > 0 {
			t.Errorf("%s: README: %v is missing, or in another place", folder, missing)
		}
	}
	if missing := missingSections("# x\n\n## Name\n\n## Syntax\n\n## Description\n"); len(missing) == 0 {
		t.Error("a README without sections passes")
	}
}

func missingSections(readme string) (missing []string) {
	for _, section := range []string{"Name", "Description", "Syntax", "JSON", "Examples", "Metrics", "Notes", "See also"} {
		_, rest, found := strings.Cut(readme, "\n## "+section+"\n")
		if !found {
			missing = append(missing, section)
			continue
		}
		readme = rest
	}
	return missing
}
