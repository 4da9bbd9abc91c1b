// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// entry is a line of the journal: a window that was about to open, or that is
// over. The first line says which boot of the machine it is about.
type entry struct {
	Boot    string       `json:"boot,omitempty"`
	Prefix  netip.Prefix `json:"prefix,omitzero"`
	Service string       `json:"service,omitempty"`
	Client  string       `json:"client,omitempty"`
	Expires time.Time    `json:"expires,omitzero"` // zero: it is over
	Close   [][]string   `json:"close,omitempty"`
}

// journal keeps what is open. A kill loses nothing; what the machine's end
// loses is of no worth after it.
type journal struct {
	path  string
	file  *os.File
	lines int
}

// bootID tells boots of this machine apart, "" where nothing does.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// readJournal reads what is open; again says that the machine was not started
// since. Lines that do not parse are skipped: the last one may be torn.
func readJournal(path string) (open map[key]entry, again bool, err error) {
	open = make(map[key]entry)
	if path == "" {
		return open, true, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return open, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	again = true
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		k := key{e.Prefix, e.Service}
		switch {
		case e.Boot != "":
			again = e.Boot == bootID()
		case !e.Prefix.IsValid():
		case e.Expires.IsZero():
			delete(open, k)
		default:
			open[k] = e
		}
	}
	return open, again, lines.Err()
}

// start writes the journal anew with what is open.
func (j *journal) start(open []entry) error {
	if j.path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	err = enc.Encode(entry{Boot: bootID()})
	for i := range open {
		err = errors.Join(err, enc.Encode(&open[i]))
	}
	if err = errors.Join(err, w.Flush()); err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.close()
	j.file, j.lines = f, len(open)
	return nil
}

// add writes one line.
func (j *journal) add(e entry) error {
	if j.file == nil {
		return nil
	}
	b, err := json.Marshal(&e)
	if err != nil {
		return err
	}
	j.lines++
	_, err = j.file.Write(append(b, '\n'))
	return err
}

// long reports whether it is time to write it anew, with so many windows open.
func (j *journal) long(open int) bool { return j.lines > 2*open+1000 }

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
}
