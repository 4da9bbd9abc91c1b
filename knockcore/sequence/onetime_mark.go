// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

func readAll(file *os.File) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("one-time sequences: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("one-time sequences: %s is not a regular file", file.Name())
	}
	content, err := io.ReadAll(io.LimitReader(file, MaxOneTimeFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("one-time sequences: %w", err)
	case len(content) > MaxOneTimeFile:
		return nil, fmt.Errorf("one-time sequences: %s is larger than %d bytes", file.Name(), MaxOneTimeFile)
	}
	return content, nil
}

// mark puts a "#" before lines and returns when that is on the disk. Where each
// line has a leading blank, the blanks are overwritten in place as knockd does:
// writing one byte is whole or not at all. Otherwise the file is written anew
// beside the old one and renamed over it, so that no digit is lost.
func mark(path string, content []byte, lines []oneTimeLine) error {
	err := markInPlace
	if slices.ContainsFunc(lines, func(l oneTimeLine) bool { return !l.blank }) {
		err = markAnew
	}
	if err := err(path, content, lines); err != nil {
		return fmt.Errorf("one-time sequences: marking %s: %w", path, err)
	}
	return nil
}

func markInPlace(path string, content []byte, lines []oneTimeLine) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for _, l := range lines {
		// The file may have been edited since it was read.
		old := make([]byte, 1)
		if _, err = file.ReadAt(old, l.offset); err == nil && old[0] != content[l.offset] {
			err = errors.New("the file has just been changed")
		}
		if err == nil {
			_, err = file.WriteAt([]byte{'#'}, l.offset)
		}
		if err != nil {
			break
		}
	}
	return errors.Join(err, file.Sync(), file.Close())
}

func markAnew(path string, content []byte, lines []oneTimeLine) error {
	slices.SortFunc(lines, func(a, b oneTimeLine) int { return int(a.offset - b.offset) })
	marked := make([]byte, 0, len(content)+len(lines))
	from := int64(0)
	for _, l := range lines {
		marked = append(marked, content[from:l.offset]...)
		marked = append(marked, '#')
		from = l.offset
	}
	marked = append(marked, content[from:]...)

	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // in vain after the rename
	_, err = temp.Write(marked)
	err = errors.Join(err, temp.Chmod(info.Mode().Perm()))
	keepOwner(temp, info)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// checkDir reports why a file beside path cannot be made.
func checkDir(path string) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}
