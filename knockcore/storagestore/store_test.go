// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
	"github.com/caddy-knock/caddy-knock/knockcore/filestore"
)

func options(t *testing.T, dir string) Options {
	local, err := filestore.Open(filestore.Options{Dir: dir, Capacity: 2048})
	if err != nil {
		t.Fatal(err)
	}
	return Options{Storage: &certmagic.FileStorage{Path: dir + "-shared"}, Local: local, Node: "a"}
}

func TestStoreSuite(t *testing.T) {
	coretest.StoreSuite(t, func(t *testing.T, dir string) knockcore.Store { return Open(options(t, dir)) }, true)
}

func TestStoreSuiteShared(t *testing.T) {
	coretest.StoreSuite(t, func(t *testing.T, dir string) knockcore.Store {
		return OpenShared(options(t, dir), time.Minute)
	}, true)
}
