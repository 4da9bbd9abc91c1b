// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/redislab"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

func TestRedisConfigErrors(t *testing.T) {
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != filepath.Dir(p); p = filepath.Dir(p) {
		_ = os.Chmod(p, 0o755)
	}
	readable := filepath.Join(dir, "readable")
	if err := os.WriteFile(readable, []byte("a password that all may read"), 0o644); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(readable, 0o644)
	for name, c := range map[string]struct{ lines, want string }{
		"no address":      {"store redis", "Caddyfile:4: store redis 10.0.0.5:6379"},
		"bad address":     {"store redis redis://x", ": not an address"},
		"unknown option":  {"store redis x {\n nonsense\n}", "Caddyfile:5: expect username, password"},
		"twice":           {"store redis x {\n timeout 1s\n timeout 2s\n}", "Caddyfile:6: given before"},
		"bad policy":      {"store redis x {\n on_store_error ignore\n}", "Caddyfile:5: neither refuse (nothing new is admitted) nor local"},
		"bad timeout":     {"store redis x {\n timeout 0\n}", "Caddyfile:5: positive duration"},
		"bad database":    {"store redis x {\n database -1\n}", "Caddyfile:5: number of a database"},
		"no master":       {"store redis x {\n sentinel\n}", "Caddyfile:5: the sentinels know the master"},
		"bad sentinel":    {"store redis x {\n sentinel m {\n  nonsense\n }\n}", "Caddyfile:6: expect username, password"},
		"bad tls":         {"store redis x {\n tls {\n  verify off\n }\n}", "Caddyfile:6: expect ca, certificate, key, server_name"},
		"tls argument":    {"store redis x {\n tls on\n}", "Caddyfile:5: takes no argument"},
		"no CA":           {"store redis x {\n tls {\n  ca " + dir + "/none\n }\n}", ": store redis: tls: ca:"},
		"no key":          {"store redis x {\n tls {\n  certificate " + dir + "/none\n }\n}", ": certificate and key go together"},
		"several":         {"store redis x y", ": several addresses need sentinels or a cluster"},
		"both":            {"store redis x {\n sentinel m\n cluster\n}", ": a cluster has no sentinels"},
		"password env":    {"store redis x {\n password {env.KNOCK_TEST_NOT_SET}\n}", ": KNOCK_TEST_NOT_SET is not set"},
		"password file":   {"store redis x {\n password {file." + readable + "}\n}", ": chmod 600"},
		"braces":          {"store redis x {\n prefix a{b\n}", ": braces"},
		"storage alone":   {"store storage", "Caddyfile:4: name a store for spent nonces"},
		"storage replays": {"store storage {\n replay storage {\n  replay memory\n }\n}", ": can't remember spent nonces; expect file, memory or redis"},
		"storage poll":    {"store storage {\n replay file\n poll 10ms\n}", "Caddyfile:6: neither off nor a duration of 100ms or more"},
		"storage twice":   {"store storage {\n replay file\n poll off\n poll 5s\n}", "Caddyfile:7: given before"},
		"storage node":    {"store storage {\n replay memory\n node \"a b\"\n}", ": made of letters, digits and -._"},
		"storage option":  {"store storage {\n interval 5s\n}", "Caddyfile:5: expect replay, poll, node"},
	} {
		t.Run(name, func(t *testing.T) {
			err := apptest.TryLoad(t, "{\n\tadmin off\n\tknock {\n"+c.lines+"\n\t}\n}\n")
			if err == nil {
				t.Fatal("was loaded")
			}
			place, text, _ := strings.Cut(c.want, ": ")
			if !strings.Contains(err.Error(), place) || !strings.Contains(err.Error(), text) {
				t.Errorf("got  %v\nwant %s … %s", err, place, text)
			}
			if strings.Contains(err.Error(), "all may read") && name == "password file" && !strings.Contains(err.Error(), "chmod") {
				t.Error("the message tells the password")
			}
		})
	}
}

func TestRedisCaddyfile(t *testing.T) {
	cfg, err := apptest.Adapt(`{
	knock {
		store redis 10.0.0.5 10.0.0.6:26380 {
			username fleet
			password {env.REDIS_PASSWORD}
			database 2
			sentinel main {
				username watcher
				password {env.SENTINEL_PASSWORD}
			}
			tls {
				ca /etc/redis/ca.pem
				certificate /etc/redis/node.pem
				key /etc/redis/node.key
				server_name redis.internal
			}
			prefix east
			node one
			timeout 250ms
			on_store_error local
			replicas 1
			nonces 4096
			insecure_file_mode
		}
	}
}`)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Apps struct {
			Knock struct{ Store map[string]any }
		}
	}
	if err := json.Unmarshal(cfg, &got); err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	_ = json.Unmarshal([]byte(`{"store": "redis", "at": "Caddyfile:3", "addresses": ["10.0.0.5", "10.0.0.6:26380"], "username": "fleet",
		"password": "{env.REDIS_PASSWORD}", "database": 2, "prefix": "east", "node": "one", "timeout": 250000000,
		"sentinel": {"master": "main", "username": "watcher", "password": "{env.SENTINEL_PASSWORD}"},
		"tls": {"ca": "/etc/redis/ca.pem", "certificate": "/etc/redis/node.pem", "key": "/etc/redis/node.key", "server_name": "redis.internal"},
		"on_store_error": "local", "replicas": 1, "nonces": 4096, "insecure_file_mode": true}`), &want)
	if !reflect.DeepEqual(got.Apps.Knock.Store, want) {
		t.Errorf("got %v\nwant %v", got.Apps.Knock.Store, want)
	}
}

// The same store goes on over reloads, with new settings; a password that is wrong
// keeps a configuration from loading, a server that is away does not.
func TestRedisReload(t *testing.T) {
	server := redislab.Start(t)
	server.Do("CONFIG", "SET", "requirepass", "the password")
	load := func(options string) error {
		return apptest.TryLoad(t, `{
	admin off
	knock {
		client alice {
			secret "a secret of sufficient length"
			services ssh
		}
		service ssh tcp/22
		store redis `+server.Address+` {
			node one
			`+options+`
		}
	}
}`)
	}
	if err := load(`password "another password"`); err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "another") {
		t.Fatalf("a wrong password: %v", err)
	}
	if err := load(`password "the password"`); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = caddy.Stop() }()
	gate := apptest.App(t).Running()
	if _, err := gate.GrantByHand(t.Context(), "alice", "ssh", netip.MustParsePrefix("192.0.2.1/32"), 0); err != nil {
		t.Fatal(err)
	}
	state := gate.State()
	if err := load("password \"the password\"\n\t\t\ttimeout 100ms\n\t\t\ton_store_error local"); err != nil {
		t.Fatal(err)
	}
	gate = apptest.App(t).Running()
	if gate.State() != state || state.Len() != 1 {
		t.Fatal("a reload lost the state")
	}
	server.Kill()
	shared := state.Store.(knockcore.Shared)
	deadline := time.Now().Add(20 * time.Second)
	for state.Store.(interface{ Health() error }).Health() == nil && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if err := shared.Admits(); err != nil {
		t.Errorf("the new policy does not hold: %v", err)
	}
	if err := load(`password "the password"`); err != nil {
		t.Errorf("a reload without the server: %v", err)
	}
	if err := shared.Admits(); knockcore.ReasonOf(err) != knockcore.ReasonStoreError {
		t.Errorf("the policy of before does not hold again: %v", err)
	}
}
