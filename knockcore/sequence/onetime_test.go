// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func oneTimeFile(t testing.TB, content string) *OneTimeFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sequences")
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := OpenOneTime(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func fileContent(t testing.TB, f *OneTimeFile) string {
	t.Helper()
	b, err := os.ReadFile(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOneTimeFile(t *testing.T) {
	for _, test := range []struct{ name, content, current, used string }{
		{"in place", " 1,2,3\n 4,5,6\n", "tcp/1 tcp/2 tcp/3", "#1,2,3\n 4,5,6\n"},
		{"a tab", "\t1,2,3\n", "tcp/1 tcp/2 tcp/3", "#1,2,3\n"},
		{"no leading blank", "10,2,3\n4,5,6\n", "tcp/10 tcp/2 tcp/3", "#10,2,3\n4,5,6\n"},
		{"comments and blank lines", "# one\n\n  # two\n 1\n", "tcp/1", "# one\n\n  # two\n#1\n"},
		{"CRLF", "#0\r\n 1,2\r\n 3\r\n", "tcp/1 tcp/2", "#0\r\n#1,2\r\n 3\r\n"},
		{"no newline at the end", "#0\n 1:udp,2", "udp/1 tcp/2", "#0\n#1:udp,2"},
		{"byte-order mark", "\xef\xbb\xbf1,2\n3\n", "tcp/1 tcp/2", "\xef\xbb\xbf#1,2\n3\n"},
		{"lines that do not parse", " text\n 70000\n 1:icmp\n 0\n 1,\n 5,6\n", "tcp/5 tcp/6", " text\n 70000\n 1:icmp\n 0\n 1,\n#5,6\n"},
		{"duplicates", " 1\n 1\n", "tcp/1", "#1\n 1\n"},
		{"used up", "#1\n", "", "#1\n"},
		{"empty", "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := oneTimeFile(t, test.content)
			steps := f.Current()
			if got := FormatSequence(steps); got != test.current {
				t.Fatalf("current: %q", got)
			}
			err := f.Use(steps)
			if (err == nil) != (test.current != "") {
				t.Fatal(err)
			}
			if got := fileContent(t, f); got != test.used {
				t.Errorf("after use: %q", got)
			}
			if f.Use(steps) == nil && test.name != "duplicates" {
				t.Error("used twice")
			}
			info, err := os.Stat(f.Path())
			if err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if rest, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Path()), ".*")); len(rest) > 0 {
				t.Errorf("left behind: %v", rest)
			}
		})
	}
}

func TestOneTimeWhole(t *testing.T) {
	for _, blank := range []string{"", " "} {
		var content, used strings.Builder
		for i := range 50 {
			fmt.Fprintf(&content, "%s%d,%d\n", blank, i+1, i+100)
			fmt.Fprintf(&used, "#%d,%d\n", i+1, i+100)
		}
		f := oneTimeFile(t, content.String())
		for i := range 50 {
			if f.Remaining() != 50-i {
				t.Fatalf("%d remain after %d", f.Remaining(), i)
			}
			if err := f.Use(f.Current()); err != nil {
				t.Fatal(err)
			}
		}
		if got := fileContent(t, f); got != used.String() || f.Current() != nil || f.Remaining() != 0 {
			t.Errorf("at the end: %q", got)
		}
		if err := f.Use(nil); err == nil {
			t.Error("nothing was used")
		}
	}
}

func TestOneTimeSymlink(t *testing.T) {
	f := oneTimeFile(t, "1,2\n3,4\n")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(f.Path(), link); err != nil {
		t.Skip(err)
	}
	linked, err := OpenOneTime(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := linked.Use(linked.Current()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
	if got := fileContent(t, f); got != "#1,2\n3,4\n" {
		t.Errorf("%q", got)
	}
}

func TestOneTimeOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenOneTime(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := OpenOneTime(dir); err == nil {
		t.Error("a directory")
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte{'\n'}, MaxOneTimeFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenOneTime(large); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("large: %v", err)
	}
}

// TestOneTimeChanged: the file is edited, or used by another, between two uses.
func TestOneTimeChanged(t *testing.T) {
	f := oneTimeFile(t, " 1\n 2\n 3\n")
	second, err := OpenOneTime(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	first := f.Current()
	if err := second.Use(first); err != nil {
		t.Fatal(err)
	}
	if err := f.Use(first); err == nil {
		t.Fatal("the replay was accepted by the other")
	}
	if got := FormatSequence(f.Current()); got != "tcp/2" {
		t.Errorf("current is %s", got)
	}
	// An editor writes a new file.
	if err := os.WriteFile(f.Path(), []byte("#1\n#2\n 7,8\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := f.Use(f.Current()); err == nil || FormatSequence(f.Current()) != "tcp/7 tcp/8" {
		t.Errorf("%v, current %v", err, f.Current())
	}
	if err := f.Use(f.Current()); err != nil || fileContent(t, f) != "#1\n#2\n#7,8\n" {
		t.Error(err)
	}
}

// TestOneTimeBurnedLater: the burned line stands behind the current one, since
// somebody edited the file.
func TestOneTimeBurnedLater(t *testing.T) {
	for _, blank := range []string{"", " "} {
		f := oneTimeFile(t, "10\n")
		steps := f.Current()
		if err := os.Remove(f.Path()); err != nil {
			t.Fatal(err)
		}
		if f.Use(steps) == nil {
			t.Fatal("used without a file")
		}
		if err := os.WriteFile(f.Path(), []byte(blank+"20\n"+blank+"10\n"+blank+"30\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Reload(); err != nil {
			t.Fatal(err)
		}
		if err := f.Use(f.Current()); err != nil {
			t.Fatal(err)
		}
		if got := fileContent(t, f); got != "#20\n#10\n"+blank+"30\n" {
			t.Errorf("%q", got)
		}
	}
}

// TestOneTimeBurned: a sequence that could not be marked is never good again.
func TestOneTimeBurned(t *testing.T) {
	for _, blank := range []string{"", " "} {
		content := blank + "1\n" + blank + "1\n" + blank + "2\n" + blank + "3\n"
		f := oneTimeFile(t, content)
		steps := f.Current()
		if err := os.Rename(f.Path(), f.Path()+"x"); err != nil {
			t.Fatal(err)
		}
		if f.Use(steps) == nil {
			t.Fatal("used without a file")
		}
		if err := os.Rename(f.Path()+"x", f.Path()); err != nil {
			t.Fatal(err)
		}
		// Also not for another reader of the process.
		f, err := OpenOneTime(f.Path())
		if err != nil || f.Remaining() != 3 {
			t.Fatalf("%v, %d remain", err, f.Remaining())
		}
		for f.Remaining() > 1 {
			if err := f.Use(f.Current()); err != nil {
				t.Fatal(err)
			}
		}
		want := "#1\n#1\n#2\n" + blank + "3\n"
		if got := fileContent(t, f); got != want {
			t.Errorf("%q", got)
		}
	}
}

func TestOneTimeConcurrent(t *testing.T) {
	f := oneTimeFile(t, strings.Repeat(" 1,2\n", 40))
	other, err := OpenOneTime(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	var uses [2]int
	var wg sync.WaitGroup
	for i, f := range []*OneTimeFile{f, other} {
		wg.Go(func() {
			for f.Remaining() > 0 {
				if steps := f.Current(); steps != nil && f.Use(steps) == nil {
					uses[i]++
				}
			}
		})
	}
	wg.Wait()
	if uses[0]+uses[1] != 40 {
		t.Errorf("%v uses of 40", uses)
	}
}

// FuzzOneTimeFile: marking changes nothing but the line that it marks, and each
// line is good once.
func FuzzOneTimeFile(f *testing.F) {
	for _, s := range []string{" 1,2\n 3\n", "1\n#2\n3", "\xef\xbb\xbf7\r\n x\n 9:udp", "\n\n #\n\t5,5", "text\n 70000\n1\n1"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "sequences")
	f.Fuzz(func(t *testing.T, content []byte) {
		delete(oneTimeSpent, path)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := OpenOneTime(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			steps := file.Current()
			if steps == nil {
				break
			}
			before, remaining := fileContent(t, file), file.Remaining()
			if err := file.Use(steps); err != nil {
				t.Fatal(err)
			}
			if file.Remaining() != remaining-1 {
				t.Fatalf("%d remain of %d", file.Remaining(), remaining)
			}
			after := fileContent(t, file)
			linesBefore, linesAfter := strings.Split(before, "\n"), strings.Split(after, "\n")
			if len(linesBefore) != len(linesAfter) {
				t.Fatalf("%q became %q", before, after)
			}
			changed := 0
			for i, old := range linesBefore {
				if old == linesAfter[i] {
					continue
				}
				changed++
				bom := ""
				if i == 0 && strings.HasPrefix(old, "\xef\xbb\xbf") {
					bom, old = old[:3], old[3:]
				}
				if linesAfter[i] != bom+"#"+old && linesAfter[i] != bom+"#"+old[1:] {
					t.Fatalf("%q became %q", old, linesAfter[i])
				}
				if got, err := ParseSequence(strings.TrimSpace(old)); err != nil || !slices.Equal(got, steps) {
					t.Fatalf("%q was marked for %v", old, steps)
				}
			}
			if changed != 1 {
				t.Fatalf("%d lines of %q changed: %q", changed, before, after)
			}
		}
	})
}
