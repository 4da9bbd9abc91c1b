// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// expandSecret replaces the placeholders in the configured text of a secret and
// reads the result. A missing file, an unset variable or an unknown placeholder
// is an error, never an empty secret. Errors name placeholders, not contents.
func expandSecret(repl *caddy.Replacer, text string, insecureFiles bool) (knockcore.Secret, error) {
	return expandKey(repl, text, insecureFiles, knockcore.ParseSecret)
}

// expandKey is expandSecret for keys that are read in another way.
func expandKey(repl *caddy.Replacer, text string, insecureFiles bool, parse func(string) (knockcore.Secret, error)) (knockcore.Secret, error) {
	expanded, err := expandSecretText(repl, text, insecureFiles)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; make a secret with `caddy-knock keygen`", err)
	}
	if err != nil {
		return knockcore.Secret{}, err
	}
	return parse(expanded)
}

// expandSecretText replaces the placeholders in the text of something secret, which
// may be a password that somebody else has set.
func expandSecretText(repl *caddy.Replacer, text string, insecureFiles bool) (string, error) {
	if err := checkBraces(text); err != nil {
		return "", err
	}
	if err := checkPlaceholders(text, insecureFiles); err != nil {
		return "", err
	}
	expanded, err := repl.ReplaceOrErr(text, true, true) // Caddy's message names the placeholder only
	return strings.TrimSpace(expanded), err
}

// isLiteral reports whether the text of a secret is the secret itself.
func isLiteral(text string) bool { return !strings.Contains(text, "{") }

// checkBraces refuses what was meant to name a file or a variable and would be the
// secret itself as it stands, one that can be guessed.
func checkBraces(text string) error {
	if !isLiteral(text) {
		return nil
	}
	for _, prefix := range []string{"file.", "file:", "env.", "env:"} {
		if strings.HasPrefix(text, prefix) {
			return fmt.Errorf("what begins with %s would be the secret itself; to read it from elsewhere write {file./path} or {env.NAME}, with braces", prefix)
		}
	}
	if filepath.IsAbs(text) {
		if _, err := os.Stat(text); err == nil {
			return errors.New("a path would be the secret itself; to read it from the file write {file./path}, with braces")
		}
	}
	return nil
}

// checkPlaceholders looks at what {file.*} and {env.*} placeholders name, for
// better messages than an empty value gives.
func checkPlaceholders(text string, insecureFiles bool) error {
	for rest := text; ; {
		_, after, found := strings.Cut(rest, "{")
		if !found {
			return nil
		}
		name, after, found := strings.Cut(after, "}")
		if !found {
			for _, kind := range []string{"file", "env"} {
				if strings.HasPrefix(name, kind+".") || strings.HasPrefix(name, kind+":") {
					return fmt.Errorf("the placeholder {%s.… is not closed and would be the secret itself; write } behind it", kind)
				}
			}
			return nil
		}
		rest = after
		for _, kind := range []string{"file", "env"} {
			if what, ok := strings.CutPrefix(name, kind+":"); ok {
				return fmt.Errorf("there is no placeholder {%s}; write {%s.%s}, with a dot", name, kind, what)
			}
		}
		if path, ok := strings.CutPrefix(name, "file."); ok {
			if err := checkKeyFile(path, insecureFiles); err != nil {
				return err
			}
		}
		if variable, ok := strings.CutPrefix(name, "env."); ok {
			if value, set := os.LookupEnv(variable); !set {
				return fmt.Errorf("environment variable %s is not set", variable)
			} else if value == "" {
				return fmt.Errorf("environment variable %s is empty", variable)
			}
		}
	}
}

// checkKeyFile refuses a key file that is missing, empty, or that others may
// read: both the file's mode and that of every folder above it must let them.
func checkKeyFile(path string, insecure bool) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key file %s: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("looking at key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("key file %s is not a regular file", path)
	}
	if info.Size() == 0 {
		return fmt.Errorf("key file %s is empty", path)
	}
	if insecure || runtime.GOOS == "windows" || info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("looking at key file: %w", err)
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("looking at the folder of a key file: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return nil // nobody else gets this far
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return fmt.Errorf("key file %s may be read by every user of this host: run `chmod 600 %s` (or set insecure_file_mode where that cannot be, as with container secrets)", path, path)
}
