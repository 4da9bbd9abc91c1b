// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
)

func TestStoreSuite(t *testing.T) {
	coretest.StoreSuite(t, func(t *testing.T, dir string) knockcore.Store {
		s, err := Open(Options{Dir: dir, Capacity: 2048, Log: func(level, msg string, err error) {
			t.Log(level, msg, err)
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Health(); err != nil {
			t.Fatal(err)
		}
		return s
	}, true)
}
