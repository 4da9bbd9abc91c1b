// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// fullFolder is a folder with 10,000 grants.
func fullFolder(b *testing.B) *certmagic.FileStorage {
	b.Helper()
	dir := b.TempDir()
	now := time.Now()
	for i := range 10_000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		g := &knockcore.Grant{
			ID: knockcore.NewGrantID(), Client: "alice", Service: "ssh", Method: knockcore.MethodUDP, Scope: knockcore.ScopeAddress,
			Prefix: knockcore.AddrPrefix(addr), Source: addr, Made: now, Expires: now.Add(time.Hour), Uses: -1,
		}
		text, err := json.Marshal(value{Node: "a", Grant: g})
		if err != nil {
			b.Fatal(err)
		}
		file := filepath.Join(dir, root, grantName(g.ID)+"."+newStamp(now))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return &certmagic.FileStorage{Path: dir}
}

// BenchmarkJoin is the first look at a folder with 10,000 grants.
func BenchmarkJoin(b *testing.B) {
	storage := fullFolder(b)
	for b.Loop() {
		s := Open(Options{Storage: storage, Local: knockcore.NewMemoryStore(0), Node: "a"})
		if list, err := s.Grants(b.Context()); err != nil || len(list) != 10_000 {
			b.Fatal(len(list), err)
		}
	}
}

// BenchmarkLook is a look that finds nothing new among 10,000 grants.
func BenchmarkLook(b *testing.B) {
	s := Open(Options{Storage: fullFolder(b), Local: knockcore.NewMemoryStore(0), Node: "a"})
	if err := s.look(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.look(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
