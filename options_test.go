// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package caddyknock

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// optionFixture is what a file testdata/options/*.txt of a module folder says about
// the options of one block. Its four parts are divided by lines of dashes:
//
//   - `parser:`, the function that reads the block, behind its folder if that is another
//     one, and `manual:`, where the README's Syntax has it;
//   - a Caddyfile with a line OPTION; a line `~ a b: text` stands for text, unless the
//     case sets a or b. DIR is a folder with files of a test;
//   - options as they should be, each with what belongs to it indented below it;
//   - options as they should not be, each with `=> part of the message` below it.
type optionFixture struct {
	parser, manual string
	host           []string
	ok, bad        [][]string
}

func parseFixture(text string) (*optionFixture, error) {
	parts := strings.Split(text, "\n----\n")
	if len(parts) != 4 {
		return nil, fmt.Errorf("%d parts, not 4", len(parts))
	}
	f := &optionFixture{host: strings.Split(parts[1], "\n"), ok: splitCases(parts[2]), bad: splitCases(parts[3])}
	for line := range strings.Lines(parts[0]) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key {
		case "parser":
			f.parser = value
		case "manual":
			f.manual = value
		}
	}
	return f, nil
}

func splitCases(text string) (cases [][]string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
		case line[0] != '\t':
			cases = append(cases, []string{line})
		case len(cases) > 0:
			cases[len(cases)-1] = append(cases[len(cases)-1], line[1:])
		}
	}
	return cases
}

// fill puts a case into the Caddyfile and returns the lines in which a fault may be
// reported: those of the case, and those that open its block and the one around it.
func (f *optionFixture) fill(lines []string) (text string, places []int) {
	sets := make(map[string]bool)
	for _, line := range lines {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		sets[name] = true
	}
	var out []string
	for _, line := range f.host {
		indent := line[:len(line)-len(strings.TrimLeft(line, "\t"))]
		rest := line[len(indent):]
		if unless, isDefault := strings.CutPrefix(rest, "~ "); isDefault {
			names, kept, _ := strings.Cut(unless, ": ")
			if slices.ContainsFunc(strings.Fields(names), func(n string) bool { return sets[n] }) {
				continue
			}
			rest = kept
		}
		if rest != "OPTION" {
			out = append(out, indent+rest)
			continue
		}
		outer := indent
		for i := len(out); i > 0 && len(places) < 2; i-- {
			if line := out[i-1]; line != "" && !strings.HasPrefix(line, outer) {
				places = append(places, i)
				outer = line[:len(line)-len(strings.TrimLeft(line, "\t"))]
			}
		}
		for _, line := range lines {
			out = append(out, indent+line)
			places = append(places, len(out))
		}
	}
	return strings.Join(out, "\n"), places
}

var unknownOption = regexp.MustCompile(`unknown option "no_such_option"; expect ([a-z0-9_, ]+), at `)

// options asks the parser which options the block has.
func (f *optionFixture) options(fill func(string) string) ([]string, error) {
	text, _ := f.fill([]string{"no_such_option"})
	_, err := apptest.Adapt(fill(text))
	if err == nil {
		return nil, fmt.Errorf("an unknown option is accepted")
	}
	m := unknownOption.FindStringSubmatch(err.Error())
	if m == nil {
		return nil, fmt.Errorf("an unknown option is refused without the names of those that exist: %v", err)
	}
	return strings.Split(m[1], ", "), nil
}

// missing lists the options that have no good or no bad case, or are not in the
// README: as a line of the Syntax, and in bold where it says what they do.
func (f *optionFixture) missing(options []string, readme string) (complaints []string) {
	names := func(cases [][]string) (first []string) {
		for _, c := range cases {
			name, _, _ := strings.Cut(c[0], " ")
			first = append(first, name)
		}
		return first
	}
	ok, bad, syntax := names(f.ok), names(f.bad), syntaxOf(readme, f.manual)
	for _, option := range options {
		if !slices.Contains(ok, option) {
			complaints = append(complaints, "no fixture sets "+option)
		}
		if !slices.Contains(bad, option) {
			complaints = append(complaints, "no fixture sets "+option+" wrongly")
		}
		if !slices.Contains(syntax, option) {
			complaints = append(complaints, "the README's syntax of `"+f.manual+"` lacks "+option)
		}
		if !strings.Contains(readme, "**"+option+"**") {
			complaints = append(complaints, "the README does not explain **"+option+"**")
		}
	}
	for _, name := range slices.Concat(ok, bad, syntax) {
		if !slices.Contains(options, name) {
			complaints = append(complaints, "there is no option "+name)
		}
	}
	return complaints
}

// syntaxOf lists the first words of the lines of a block in the README's code, given
// as `outer > inner`: what the lines begin with that open it; several by commas.
func syntaxOf(readme, path string) (words []string) {
	if one, others, several := strings.Cut(path, ", "); several {
		return append(syntaxOf(readme, one), syntaxOf(readme, others)...)
	}
	steps := strings.Split(path, " > ")
	var open []string
	fenced, language := false, ""
	for line := range strings.Lines(readme) {
		if rest, fence := strings.CutPrefix(line, "```"); fence {
			fenced, language, open = !fenced, strings.TrimSpace(rest), nil
			continue
		}
		if line == "\n" {
			continue
		}
		if fenced && language != "" || !fenced && !strings.HasPrefix(line, "\t") {
			open = nil
			continue
		}
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
			continue
		case line == "}":
			open = open[:max(0, len(open)-1)]
			continue
		}
		if slices.EqualFunc(open, steps, func(line, step string) bool { return strings.HasPrefix(line, step+" ") }) {
			name, _, _ := strings.Cut(line, " ")
			if name != "..." && name[0] != '<' {
				words = append(words, name)
			}
		}
		if strings.HasSuffix(line, "{") {
			open = append(open, line)
		}
	}
	return words
}

// TestOptions: each option that a Caddyfile can set is set by a fixture that loads and
// by one that is refused, with place and reason, and is in the README of its module.
func TestOptions(t *testing.T) {
	dir := t.TempDir()
	for name, content := range optionFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeCertificate(t, filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	t.Setenv("XDG_DATA_HOME", dir)
	fill := func(text string) string { return strings.ReplaceAll(text, "DIR", filepath.ToSlash(dir)) }
	files, err := filepath.Glob("*/testdata/options/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	deeper, _ := filepath.Glob("*/*/testdata/options/*.txt")
	blocks, known := readOptionParsers(t)
	covered, total := make(map[string]bool), 0
	for _, file := range append(files, deeper...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parseFixture(strings.ReplaceAll(string(text), "\r\n", "\n"))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		module := filepath.Dir(filepath.Dir(filepath.Dir(file)))
		readme, err := os.ReadFile(filepath.Join(module, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		options, err := f.options(fill)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		folder, function, elsewhere := strings.Cut(f.parser, " ")
		if !elsewhere {
			folder, function = filepath.ToSlash(module), f.parser
		}
		key := folder + " " + function
		if _, exists := blocks[key]; !exists {
			t.Errorf("%s: %s reads no block of options", file, key)
		}
		covered[key] = true
		total += len(options)
		for _, option := range options {
			delete(known[folder], option)
		}
		for _, complaint := range f.missing(options, string(readme)) {
			t.Errorf("%s: %s", file, complaint)
		}
		for _, c := range f.ok {
			text, _ := f.fill(c)
			if err := validate(fill(text)); err != nil {
				t.Errorf("%s: %s: %v", file, c[0], err)
			}
		}
		for _, c := range f.bad {
			last := len(c) - 1
			want, found := strings.CutPrefix(c[last], "=> ")
			if !found {
				t.Errorf("%s: %s: no message is expected", file, c[0])
				continue
			}
			text, places := f.fill(c[:last])
			if complaint := refusal(validate(fill(text)), want, places); complaint != "" {
				t.Errorf("%s: %s: %s", file, c[0], complaint)
			}
		}
	}
	for block := range blocks {
		if !covered[block] {
			t.Errorf("%s reads options that no fixture is about", block)
		}
	}
	for module, names := range known {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			t.Errorf("%s has a case for %q, which is no option that messages name", module, name)
		}
	}
	if total < 150 || len(blocks) < 20 {
		t.Errorf("only %d options of %d blocks were seen", total, len(blocks))
	}
	t.Logf("%d options of %d blocks", total, len(blocks))
}

// optionFiles are what fixtures refer to as DIR/NAME.
var optionFiles = map[string]string{
	"alice.key":      "a secret of alice for this test",
	"sequences.txt":  "tcp/7000 tcp/8000 tcp/9000\n",
	"clients.json":   `{"clients": [{"id": "bob", "secrets": ["a secret of bob for this test"]}]}`,
	"broken.json":    `{"clients": [`,
	"not-a-pem.file": "no certificate",
}

func writeCertificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// validate adapts and provisions a Caddyfile, as `caddy validate` does.
func validate(text string) error {
	adapted, err := apptest.Adapt(text)
	if err != nil {
		return err
	}
	cfg := new(caddy.Config)
	if err := json.Unmarshal(adapted, cfg); err != nil {
		return err
	}
	cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "ERROR"}}}}
	return caddy.Validate(cfg)
}

var placeInMessage = regexp.MustCompile(`Caddyfile:(\d+)`)

// refusal says what is wrong with a message about a bad option.
func refusal(err error, want string, places []int) string {
	if err == nil {
		return "was accepted"
	}
	if !strings.Contains(err.Error(), want) {
		return fmt.Sprintf("the message is %q, without %q", err, want)
	}
	for _, m := range placeInMessage.FindAllStringSubmatch(err.Error(), -1) {
		if n, _ := strconv.Atoi(m[1]); slices.Contains(places, n) {
			return ""
		}
	}
	return fmt.Sprintf("the message does not name the line (%v): %v", places, err)
}

// readOptionParsers reads from the source which functions refuse unknown options, and
// for each folder the words that those and their helpers compare with what they read.
func readOptionParsers(t *testing.T) (blocks map[string]bool, known map[string]map[string]bool) {
	t.Helper()
	blocks, known = make(map[string]bool), make(map[string]map[string]bool)
	for _, dir := range []string{"knockcore/knockapp", "l4knock", "httpknock", "firewallmod"} {
		known[dir] = make(map[string]bool)
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range file.Decls {
				f, isFunc := decl.(*ast.FuncDecl)
				if !isFunc || f.Body == nil {
					continue
				}
				if refusesUnknown(f.Body) {
					blocks[dir+" "+funcName(f)] = true
				}
				for _, word := range optionCases(f) {
					known[dir][word] = true
				}
			}
		}
	}
	return blocks, known
}

func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	return typ.(*ast.Ident).Name + "." + f.Name.Name
}

// refusesUnknown reports whether Options.Unknown is called.
func refusesUnknown(body ast.Node) (found bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Unknown" {
				found = true
			}
		}
		return !found
	})
	return found
}

// optionCases are the words that a function with Options or a Dispenser compares
// options with: `switch d.Val()`, `switch name`, `name == "word"`.
func optionCases(f *ast.FuncDecl) (words []string) {
	reads := false
	ast.Inspect(f.Type.Params, func(n ast.Node) bool {
		name, ok := n.(*ast.Ident)
		reads = reads || ok && (name.Name == "Options" || name.Name == "Dispenser")
		return true
	})
	if !reads {
		return nil
	}
	isOption := func(e ast.Expr) bool {
		if name, ok := e.(*ast.Ident); ok {
			return name.Name == "name"
		}
		call, ok := e.(*ast.CallExpr)
		if !ok {
			return false
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		return ok && sel.Sel.Name == "Val"
	}
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if word, err := strconv.Unquote(lit.Value); err == nil && word != "all" && word != "off" {
				words = append(words, word)
			}
		}
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SwitchStmt:
			if n.Tag == nil || !isOption(n.Tag) {
				return true
			}
			for _, clause := range n.Body.List {
				for _, e := range clause.(*ast.CaseClause).List {
					add(e)
				}
			}
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && isOption(n.X) {
				add(n.Y)
			}
		}
		return true
	})
	return words
}

// TestOptionsIsStrict: what TestOptions looks for, it finds.
func TestOptionsIsStrict(t *testing.T) {
	const readme = "```\nthing {\n\tone <x>\n\tfour\n}\nother {\n\ttwo\n}\n```\n**one** is explained. two is not.\n"
	f, err := parseFixture("parser: p\nmanual: thing\n----\nthing {\n\t~ one: one 1\n\tOPTION\n}\n----\none 1\nthree\n----\none\n\t=> takes\n")
	if err != nil {
		t.Fatal(err)
	}
	got := f.missing([]string{"one", "two"}, readme)
	want := []string{
		"no fixture sets two", "no fixture sets two wrongly", "the README's syntax of `thing` lacks two", "the README does not explain **two**",
		"there is no option three", "there is no option four",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if text, places := f.fill([]string{"two", "\tmore"}); text != "thing {\n\tone 1\n\ttwo\n\t\tmore\n}" || !slices.Equal(places, []int{1, 3, 4}) {
		t.Errorf("%q %v", text, places)
	}
	if text, _ := f.fill([]string{"one 2"}); text != "thing {\n\tone 2\n}" {
		t.Errorf("%q", text)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "was accepted"},
		{fmt.Errorf("it is bad, at Caddyfile:2"), "without"},
		{fmt.Errorf("it is wrong"), "does not name the line"},
		{fmt.Errorf("it is wrong, at Caddyfile:20"), "does not name the line"},
	} {
		if got := refusal(c.err, "wrong", []int{2}); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q", c.err, got)
		}
	}
}
