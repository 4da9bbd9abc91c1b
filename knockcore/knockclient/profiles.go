// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Profiles is a folder of profiles, each in a file of its own, named after the
// profile: NAME.json. Bytes of the name other than letters, digits and ._@- are
// written as % and two hexadecimal digits.
type Profiles struct{ Dir string }

// DefaultProfiles is the folder caddy-knock/profiles in the user's configuration
// directory (os.UserConfigDir: ~/.config on Linux, ~/Library/Application Support
// on macOS, %AppData% on Windows).
func DefaultProfiles() (Profiles, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return Profiles{}, fmt.Errorf("finding the folder of profiles: %w", err)
	}
	return Profiles{filepath.Join(dir, "caddy-knock", "profiles")}, nil
}

const profileSuffix = ".json"

// Path is the file of the profile of this name.
func (p Profiles) Path(name string) string {
	return filepath.Join(p.Dir, escapeName(name)+profileSuffix)
}

// Load reads a profile and, if that stands in a file of its own, its secret. The
// error wraps fs.ErrNotExist if there is no such profile, and a *FileModeError if
// others may read one of the files.
func (p Profiles) Load(name string) (*Profile, error) {
	b, err := readPrivate(p.Path(name), false)
	if err != nil {
		return nil, fmt.Errorf("reading profile %s: %w", name, err)
	}
	profile := new(Profile)
	if err := json.Unmarshal(b, profile); err != nil {
		return nil, fmt.Errorf("reading profile %s: %s: %w", name, p.Path(name), err)
	}
	if profile.SecretFile != "" {
		path := profile.SecretFile
		if !filepath.IsAbs(path) {
			path = filepath.Join(p.Dir, path)
		}
		if profile.Secret, err = ReadSecretFile(path, false); err != nil {
			// A missing secret is not a missing profile.
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("its secret_file %s does not exist", path)
			}
			return nil, fmt.Errorf("reading profile %s: %w", name, err)
		}
	}
	if profile.Knock != nil {
		if err := profile.Knock.load(p.Dir); err != nil {
			return nil, fmt.Errorf("reading profile %s: %w", name, err)
		}
	}
	if profile.HTTP != nil {
		if err := profile.HTTP.load(p.Dir); err != nil {
			return nil, fmt.Errorf("reading profile %s: %w", name, err)
		}
	}
	if err := profile.Validate(); err != nil {
		return nil, fmt.Errorf("reading profile %s: %s: %w", name, p.Path(name), err)
	}
	return profile, nil
}

// Save writes a profile, for its owner's eyes only and at once or not at all. It
// replaces one of the same name only if it may; otherwise the error wraps
// fs.ErrExist. With SecretFile set, the secret itself is not written.
func (p Profiles) Save(name string, profile *Profile, replace bool) error {
	if err := knockcore.ValidateID(name); err != nil {
		return fmt.Errorf("writing profile %s: %w", name, err)
	}
	stored := *profile
	if stored.SecretFile != "" {
		stored.Secret = knockcore.Secret{}
	}
	b, err := stored.Text()
	if err == nil {
		err = p.write(name, b, replace)
	}
	if err != nil {
		return fmt.Errorf("writing profile %s: %w", name, err)
	}
	return nil
}

func (p Profiles) write(name string, b []byte, replace bool) (err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	path := p.Path(name)
	if !replace {
		// Reserve the name: what is there already stays as it is.
		reserved, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_ = reserved.Close()
	}
	err = replaceFile(path, b)
	if err != nil && !replace {
		_ = os.Remove(path)
	}
	return err
}

// replaceFile writes a file of mode 0600, at once or not at all.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Remove deletes a profile; a secret_file stays. The error wraps fs.ErrNotExist
// if there is no such profile.
func (p Profiles) Remove(name string) error {
	if err := os.Remove(p.Path(name)); err != nil {
		return fmt.Errorf("removing profile %s: %w", name, err)
	}
	return nil
}

// Names lists the profiles, sorted; none if there is no folder.
func (p Profiles) Names() ([]string, error) {
	entries, err := os.ReadDir(p.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing profiles: %w", err)
	}
	var names []string
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), profileSuffix)
		if name, err := unescapeName(base); ok && err == nil && name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
