// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"hash/crc32"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/redislab"
)

// patience is how long knocks of the tests wait for the server, which may be a while
// on a busy machine.
const patience = 10 * time.Second

func testOptions(t testing.TB, node, prefix string, addresses ...string) Options {
	return Options{Addresses: addresses, Prefix: prefix, Node: node, Settings: Settings{Timeout: patience}, Log: func(level, msg string, err error) {
		t.Log(node, level, msg, err)
	}}
}

func TestStoreSuite(t *testing.T) {
	server := redislab.Start(t)
	coretest.StoreSuite(t, func(t *testing.T, dir string) knockcore.Store {
		prefix := strconv.Itoa(int(crc32.ChecksumIEEE([]byte(dir))))
		server.Forgive(prefix)
		opts := testOptions(t, "a", prefix, server.Address)
		opts.Capacity = 2048
		opts.Log = func(string, string, error) {} // may come when the test is over
		s, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Health(); err != nil {
			t.Fatal(err)
		}
		return s
	}, true)
}
