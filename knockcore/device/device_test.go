// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestBook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "devices.json")
	now := time.Now()
	if list, err := NewBook(path).List(); err != nil || len(list) != 0 {
		t.Fatalf("a book that is not there: %v, %v", list, err)
	}
	// Several books share the file.
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			d, key, err := NewBook(path).Add("phone", fmt.Sprint(" name ", i, "\n"), now)
			if err != nil || d.Sum() != knockcore.HashAPIKey(string(key.Bytes())) || knockcore.ValidateAPIKey(string(key.Bytes())) != nil {
				t.Errorf("%v, %v", d, err)
			}
		})
	}
	all.Wait()
	book := NewBook(path)
	list, err := book.List()
	if err != nil || len(list) != 8 || !strings.HasPrefix(list[0].Name, "name ") {
		t.Fatalf("%v, %v", list, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	removed, err := book.Remove(func(d Device) bool { return d.ID == list[3].ID })
	if err != nil || len(removed) != 1 || removed[0] != list[3] {
		t.Errorf("%v, %v", removed, err)
	}
	if list, _ = book.List(); len(list) != 7 {
		t.Errorf("%d are left", len(list))
	}
	// What is damaged stays as it is.
	if err := os.WriteFile(path, []byte(`{"devices": [{}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := book.Add("phone", "x", now); err == nil {
		t.Error("a damaged book was written over")
	}
	if b, _ := os.ReadFile(path); string(b) != `{"devices": [{}]}` {
		t.Errorf("the book is %s", b)
	}
}

func TestCleanName(t *testing.T) {
	for name, want := range map[string]string{
		" My phone\n": "My phone", "\x1b[31mred": "[31mred", "a\u202eb": "ab", "": "", "\xff": "",
		strings.Repeat("ü", 50): strings.Repeat("ü", MaxName),
	} {
		if got := CleanName(name); got != want {
			t.Errorf("%q: %q instead of %q", name, got, want)
		}
	}
}

func TestInvites(t *testing.T) {
	var i Invites
	now := time.Now()
	token, expires, err := i.Add("phone", 0, now)
	if err != nil || !expires.Equal(now.Add(DefaultLife)) {
		t.Fatal(expires, err)
	}
	text := string(token.Bytes())
	if _, err := i.Redeem(text[1:], now); !errors.Is(err, ErrInvite) {
		t.Errorf("part of a token: %v", err)
	}
	if client, err := i.Redeem(text, now.Add(DefaultLife-1)); err != nil || client != "phone" {
		t.Errorf("%q, %v", client, err)
	}
	if _, err := i.Redeem(text, now); !errors.Is(err, ErrInvite) {
		t.Errorf("a used token: %v", err)
	}
	token, _, _ = i.Add("phone", time.Minute, now)
	if _, err := i.Redeem(string(token.Bytes()), now.Add(time.Minute)); !errors.Is(err, ErrInvite) {
		t.Errorf("a late token: %v", err)
	}
	for range MaxInvites {
		if _, _, err := i.Add("phone", time.Minute, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := i.Add("phone", time.Minute, now); err == nil {
		t.Error("there is no bound")
	}
	if _, _, err := i.Add("phone", time.Minute, now.Add(time.Minute)); err != nil {
		t.Errorf("those that are over still count: %v", err)
	}
	for _, life := range []time.Duration{-1, MaxLife + 1} {
		if _, _, err := i.Add("phone", life, now); err == nil {
			t.Errorf("an invitation for %v", life)
		}
	}
}

// FuzzBook reads anything as a book: what is accepted can be written and read again.
func FuzzBook(f *testing.F) {
	d := Device{ID: knockcore.NewGrantID().String(), Client: "phone", Name: "x", Hash: knockcore.APIKeyHashText(knockcore.HashAPIKey("k"))}
	f.Add(fmt.Appendf(nil, `{"devices": [{"id": %q, "client": %q, "name": %q, "api_key_hash": %q, "joined": "2026-01-01T00:00:00Z"}]}`, d.ID, d.Client, d.Name, d.Hash))
	f.Add([]byte(`{"devices": []} x`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parse(text)
		if err != nil {
			return
		}
		for _, d := range list {
			if err := d.validate(); err != nil || d.Sum() == [32]byte{} && d.Hash != "sha256:"+strings.Repeat("0", 64) {
				t.Errorf("%v: %v", d, err)
			}
		}
	})
}
