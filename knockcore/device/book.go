// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	// MaxDevices is how many devices a Book holds.
	MaxDevices = 10_000
	// MaxName bounds the name of a device, in characters.
	MaxName = 40
	// maxFile bounds the file, in bytes.
	maxFile = 16 << 20
	// keyLen is the length of a device's key before it is text, in bytes.
	keyLen = 32
)

// Device is something that knocks with a key of its own, in the name of a client.
type Device struct {
	// ID names the device: 16 hexadecimal digits.
	ID string `json:"id"`
	// Client is whose device it is.
	Client string `json:"client"`
	// Name is what its user calls it, for people: see CleanName.
	Name string `json:"name"`
	// Hash is the SHA-256 sum of its API key, as knockcore.APIKeyHashText writes it.
	Hash string `json:"api_key_hash"`
	// Joined is when it got its key.
	Joined time.Time `json:"joined"`
}

// Sum is the SHA-256 sum of the device's API key.
func (d Device) Sum() [sha256.Size]byte {
	sum, _ := knockcore.ParseAPIKeyHash(d.Hash) // checked when it was read
	return sum
}

// ErrFull says that there are MaxDevices devices.
var ErrFull = errors.New("there are too many devices; revoke some")

// Book is a file of devices. It holds no key, only their hashes. A file that is not
// there is an empty book; one that is damaged is never written over.
//
// Books of the same process may share a file: each change reads it anew. Other
// processes may read it, and replace it when nobody joins.
type Book struct{ path string }

// books orders the changes of all books.
var books sync.Mutex

// NewBook returns the book in this file, which need not exist.
func NewBook(path string) *Book { return &Book{path} }

// Path is the file.
func (b *Book) Path() string { return b.path }

// List reads the devices, in the order in which they joined.
func (b *Book) List() ([]Device, error) {
	f, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", b.path, maxFile)
	}
	list, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.path, err)
	}
	return list, nil
}

// content is the file.
type content struct {
	Devices []Device `json:"devices"`
}

func parse(text []byte) ([]Device, error) {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	var c content
	if err := dec.Decode(&c); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("there is something after the end of the JSON object")
	}
	hashes := make(map[string]bool, len(c.Devices))
	for i, d := range c.Devices {
		if err := d.validate(); err != nil {
			return nil, fmt.Errorf("device %d: %w", i+1, err)
		}
		if hashes[d.Hash] || hashes[d.ID] {
			return nil, fmt.Errorf("device %d is there twice", i+1)
		}
		hashes[d.Hash], hashes[d.ID] = true, true
	}
	return c.Devices, nil
}

func (d *Device) validate() error {
	if b, err := hex.DecodeString(d.ID); err != nil || len(b) != 8 {
		return errors.New("its id is not 16 hexadecimal digits")
	}
	if err := knockcore.ValidateID(d.Client); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if CleanName(d.Name) != d.Name {
		return errors.New("its name is too long or has characters that can't be shown")
	}
	_, err := knockcore.ParseAPIKeyHash(d.Hash)
	return err
}

// CleanName makes a name fit to be shown: printable characters, at most MaxName,
// without blanks around them. What is left may be empty.
func CleanName(name string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name))
	if runes := []rune(name); len(runes) > MaxName {
		name = strings.TrimSpace(string(runes[:MaxName]))
	}
	return name
}

// Add makes a device and its key, which is returned this once and kept nowhere.
func (b *Book) Add(client, name string, now time.Time) (d Device, key knockcore.Secret, err error) {
	random := make([]byte, keyLen)
	_, _ = rand.Read(random) // never fails: see crypto/rand
	text := base64.RawURLEncoding.EncodeToString(random)
	if name = CleanName(name); name == "" {
		name = "device"
	}
	d = Device{
		ID: knockcore.NewGrantID().String(), Client: client, Name: name,
		Hash: knockcore.APIKeyHashText(knockcore.HashAPIKey(text)), Joined: now.UTC().Truncate(time.Second),
	}
	err = b.change(func(list []Device) ([]Device, error) {
		if len(list) >= MaxDevices {
			return nil, ErrFull
		}
		return append(list, d), nil
	})
	return d, knockcore.NewSecret([]byte(text)), err
}

// Remove takes out the devices that match and returns them.
func (b *Book) Remove(match func(Device) bool) (removed []Device, err error) {
	err = b.change(func(list []Device) ([]Device, error) {
		rest := make([]Device, 0, len(list))
		for _, d := range list {
			if match(d) {
				removed = append(removed, d)
			} else {
				rest = append(rest, d)
			}
		}
		if len(removed) == 0 {
			return nil, nil
		}
		return rest, nil
	})
	if err != nil {
		return nil, err
	}
	return removed, nil
}

// change replaces the devices by what f makes of them; nil leaves them as they are.
func (b *Book) change(f func([]Device) ([]Device, error)) error {
	books.Lock()
	defer books.Unlock()
	list, err := b.List()
	if err != nil {
		return err
	}
	if list, err = f(slices.Clip(list)); err != nil || list == nil {
		return err
	}
	text, err := json.MarshalIndent(content{list}, "", "\t")
	if err != nil {
		return err
	}
	return replaceFile(b.path, append(text, '\n'))
}

// replaceFile writes a file of mode 0600, at once or not at all.
func replaceFile(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	if d, err := os.Open(dir); err == nil { // so that the name is on disk too
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
