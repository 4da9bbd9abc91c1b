// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// maxPrivateFile bounds profiles and files of secrets.
const maxPrivateFile = 64 << 10

// FileModeError is a file with a secret that others than its owner may read or
// change.
type FileModeError struct {
	Path string
	Mode fs.FileMode
}

// Error says which command mends it.
func (e *FileModeError) Error() string {
	return fmt.Sprintf("file %s is open to group or others (mode %04o); run: chmod 600 '%s'",
		e.Path, e.Mode.Perm(), strings.ReplaceAll(e.Path, "'", `'\''`))
}

// ReadSecretFile reads a secret from a file that holds it as knockcore.ParseSecret
// reads it, with blanks and line ends around it. Where files have owners, a
// regular file that others may read is refused with a *FileModeError, unless
// anyMode is true (secrets that are mounted in containers).
func ReadSecretFile(path string, anyMode bool) (knockcore.Secret, error) {
	return ReadKeyFile(path, anyMode, knockcore.ParseSecret)
}

// ReadKeyFile is ReadSecretFile for keys whose text is read by another function:
// wire.ParsePyknockKey, wire.ParseFwknopKey.
func ReadKeyFile(path string, anyMode bool, parse func(text string) (knockcore.Secret, error)) (knockcore.Secret, error) {
	b, err := readPrivate(path, anyMode)
	if err != nil {
		return knockcore.Secret{}, fmt.Errorf("reading a secret: %w", err)
	}
	secret, err := parse(strings.TrimSpace(string(b)))
	if err == nil && secret.IsZero() {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return knockcore.Secret{}, fmt.Errorf("reading a secret: file %s: %w", path, err)
	}
	return secret, nil
}

// readPrivate reads a file whose mode it has checked: of the file that it reads,
// not of the one that has the name a moment before.
func readPrivate(path string, anyMode bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !anyMode && info.Mode().IsRegular() && openToOthers(info.Mode()) {
		return nil, &FileModeError{Path: path, Mode: info.Mode()}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPrivateFile+1))
	if err == nil && len(b) > maxPrivateFile {
		err = fmt.Errorf("file %s is longer than %d bytes", path, maxPrivateFile)
	}
	return b, err
}
