// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// MaxOneTimeFile is the greatest size of a one-time file in bytes.
const MaxOneTimeFile = 16 << 20

// OneTimeFile is a file of sequences that are good for one opening each
// (port-sequences.md section 6): one sequence a line, in knockd's syntax. Blank
// lines and lines whose first non-blank is "#" are skipped; a used line gets a
// "#". The first line that is not used is the current sequence. The same
// sequence on two lines is good for two openings.
//
// A line that does not parse is skipped and left as it is. Its methods are safe
// for concurrent use, also by two OneTimeFiles of one path in one process.
type OneTimeFile struct {
	path string

	mu    sync.Mutex
	lines [][]Step // not used up, in order
	bad   []string
}

var (
	// oneTimeWrites makes reading, choosing and marking one step for all files of
	// the process: a reload has two OneTimeFiles of one path for a moment.
	oneTimeWrites sync.Mutex
	// oneTimeSpent has, by path, the sequences that are burned but could not be
	// marked.
	oneTimeSpent = make(map[string][][]Step)
)

// OpenOneTime reads a one-time file and makes sure that it can be marked: it is
// a regular file that may be written, and, if some line has no leading blank to
// put the mark on, its directory may be written too. A file without a sequence
// that could be used is no error; see Remaining.
func OpenOneTime(path string) (*OneTimeFile, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("one-time sequences: %w", err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fmt.Errorf("one-time sequences: %w", err)
	}
	f := &OneTimeFile{path: abs}
	oneTimeWrites.Lock()
	defer oneTimeWrites.Unlock()
	_, lines, _, err := f.read()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(lines, func(l oneTimeLine) bool { return !l.blank }) {
		if err := checkDir(abs); err != nil {
			return nil, fmt.Errorf("one-time sequences: a line of %s has no leading blank, so marking it means to write the file anew, but that is not possible here (%w); begin each line with a blank", abs, err)
		}
	}
	return f, nil
}

// Path is the file's name, without symbolic links.
func (f *OneTimeFile) Path() string { return f.path }

// Current returns the sequence that comes next, nil if all are used up. It must
// not be changed.
func (f *OneTimeFile) Current() []Step {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) == 0 {
		return nil
	}
	return f.lines[0]
}

// Remaining is the number of sequences that are not used up.
func (f *OneTimeFile) Remaining() int { return len(f.unused()) }

// Skipped says which lines do not parse, and why.
func (f *OneTimeFile) Skipped() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bad
}

// Reload reads the file anew, so that changes by others count.
func (f *OneTimeFile) Reload() error {
	oneTimeWrites.Lock()
	defer oneTimeWrites.Unlock()
	_, _, _, err := f.read()
	return err
}

// Use marks the current sequence as used, if it is still steps, and returns when
// that is on the disk. After an error the sequence is not to be acted upon. If
// the disk is to blame, the sequence is burned all the same, since others may
// have seen it: it is never current again in this process, and the mark is tried
// again with the next Use.
//
// The file is read anew, so that changes by others count.
func (f *OneTimeFile) Use(steps []Step) error {
	oneTimeWrites.Lock()
	defer oneTimeWrites.Unlock()
	if current := f.Current(); len(steps) == 0 || !slices.Equal(current, steps) {
		return fmt.Errorf("one-time sequences: this is not the current one of %s", f.path)
	}
	content, lines, burned, err := f.read()
	if err != nil {
		f.burn(steps)
		return err
	}
	if len(lines) == 0 || !slices.Equal(lines[0].steps, steps) {
		return fmt.Errorf("one-time sequences: %s was changed or used by another, and its current sequence is a different one", f.path)
	}
	f.burn(steps)
	if err := mark(f.path, content, append(burned, lines[0])); err != nil {
		return err
	}
	delete(oneTimeSpent, f.path)
	return nil
}

// burn ends the current sequence in this process.
func (f *OneTimeFile) burn(steps []Step) {
	oneTimeSpent[f.path] = append(oneTimeSpent[f.path], steps)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = f.lines[1:]
}

// read reads the file and takes over what it finds. burned are the lines that
// should have been marked before; they do not count as usable.
func (f *OneTimeFile) read() (content []byte, lines, burned []oneTimeLine, err error) {
	if content, err = readOneTime(f.path); err != nil {
		return nil, nil, nil, err
	}
	lines, bad := parseOneTime(content)
	for _, steps := range oneTimeSpent[f.path] {
		same := func(l oneTimeLine) bool { return slices.Equal(l.steps, steps) }
		if i := slices.IndexFunc(lines, same); i >= 0 {
			burned = append(burned, lines[i])
			lines = slices.Delete(lines, i, i+1)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines, f.bad = make([][]Step, len(lines)), bad
	for i, l := range lines {
		f.lines[i] = l.steps
	}
	return content, lines, burned, nil
}

func (f *OneTimeFile) unused() [][]Step {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lines
}

// oneTimeLine is a line that can be used.
type oneTimeLine struct {
	offset int64 // of its first byte
	blank  bool  // which is a blank, made to be overwritten
	steps  []Step
}

func parseOneTime(content []byte) (lines []oneTimeLine, bad []string) {
	offset := 0
	if bytes.HasPrefix(content, []byte("\xef\xbb\xbf")) {
		offset = 3
	}
	for number := 1; offset < len(content); number++ {
		line := content[offset:]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			line = line[:end]
		}
		text := strings.TrimSpace(string(line))
		if text != "" && text[0] != '#' {
			steps, err := ParseSequence(text)
			if err == nil {
				blank := line[0] == ' ' || line[0] == '\t'
				lines = append(lines, oneTimeLine{offset: int64(offset), blank: blank, steps: steps})
			} else if len(bad) < 16 {
				bad = append(bad, fmt.Sprintf("line %d: %v", number, err))
			}
		}
		offset += len(line) + 1
	}
	return lines, bad
}

func readOneTime(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("one-time sequences: the file must be open to reading and writing: %w", err)
	}
	defer file.Close()
	return readAll(file)
}
