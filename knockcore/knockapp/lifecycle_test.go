// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-l4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	_ "github.com/caddy-knock/caddy-knock/l4knock"
)

func init() { caddy.RegisterModule(new(failingApp)) }

// failingApp is an app that fails to provision or to start, to order.
type failingApp struct {
	Provisioning bool `json:"provisioning,omitempty"`
	Starting     bool `json:"starting,omitempty"`
}

func (*failingApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "failing", New: func() caddy.Module { return new(failingApp) }}
}

func (f *failingApp) Provision(caddy.Context) error {
	if f.Provisioning {
		return errors.New("failing to provision, as ordered")
	}
	return nil
}

func (f *failingApp) Start() error {
	if f.Starting {
		return errors.New("failing to start, as ordered")
	}
	return nil
}

func (*failingApp) Stop() error { return nil }

// config is a configuration; extra goes into the list of apps.
func config(comment, extra string) []byte {
	return fmt.Appendf(nil, `{
	"admin": {"disabled": true, "config": {"persist": false}},
	"logging": {"logs": {"default": {"level": "ERROR"}}},
	"apps": {
		"knock": {
			"clients": [{"id": "alice", "secrets": ["a secret of alice, long enough"], "services": ["web"], "at": %q}],
			"services": [{"name": "web", "ports": ["tcp/443"]}],
			"store": {"store": "memory"}
		}%s
	}
}`, comment, extra)
}

func knock(t *testing.T, nonce byte) knockcore.Knock {
	t.Helper()
	gate := apptest.App(t).Running()
	return knockcore.Knock{
		Client: gate.Keyring().Client("alice"), Method: knockcore.MethodUDP, Source: netip.MustParseAddr("203.0.113.7"),
		Time: time.Now(), Replay: knockcore.NewReplayKey(knockcore.ReplayUDP, "alice", []byte{nonce}), Length: time.Hour,
	}
}

func admit(t *testing.T, k knockcore.Knock) error {
	t.Helper()
	_, err := apptest.App(t).Running().Admit(context.Background(), k)
	return err
}

func load(t *testing.T, cfg []byte) error {
	t.Helper()
	return caddy.Load(cfg, true)
}

// TestStateOutlivesConfigurations goes through the rows of the lifecycle: a
// first load, a good reload, one that fails to provision, one that fails to
// start, a validation, and a stop.
func TestStateOutlivesConfigurations(t *testing.T) {
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := load(t, config("1", "")); err != nil {
		t.Fatal(err)
	}
	first := knock(t, 1)
	if err := admit(t, first); err != nil {
		t.Fatal(err)
	}
	stands := func(when string) {
		t.Helper()
		if err := admit(t, first); !errors.Is(err, knockcore.ReasonReplay) {
			t.Errorf("%s: a replay gives %v", when, err)
		}
		query := knockcore.NewQuery([]string{"web"}, nil)
		if !query.Match(apptest.App(t).Running().State().Table, first.Source) {
			t.Errorf("%s: the grant is gone", when)
		}
	}
	stands("after the first load")
	if err := load(t, config("2", "")); err != nil {
		t.Fatal(err)
	}
	stands("after a reload")
	running := apptest.App(t)
	for i, extra := range []string{`, "failing": {"provisioning": true}`, `, "failing": {"starting": true}`} {
		// Apps provision and start in random order, so each is tried some times.
		for range 10 {
			if err := load(t, config("failing", extra)); err == nil || !strings.Contains(err.Error(), "as ordered") {
				t.Fatalf("failing configuration %d: %v", i, err)
			}
			if apptest.App(t) != running {
				t.Fatal("another configuration runs")
			}
			stands("after a failed reload")
		}
	}
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON(config("validate", ""), &cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&cfg); err != nil {
		t.Fatal(err)
	}
	stands("after a validation")
	if err := load(t, config("3", "")); err != nil {
		t.Fatal(err)
	}
	stands("after a reload that follows failed ones")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := load(t, config("4", "")); err != nil {
		t.Fatal(err)
	}
	if err := admit(t, first); err != nil {
		t.Errorf("the memory store outlived a stop: %v", err)
	}
}

func TestReloadsLeaveNothingBehind(t *testing.T) {
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := load(t, config("0", "")); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for i := range 20 {
		if err := load(t, config(fmt.Sprint("reload ", i), "")); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			_ = load(t, config(fmt.Sprint("failing ", i), `, "failing": {"starting": true}`))
		}
	}
	apptest.Await(t, "the goroutines of old configurations to end", func() bool { return runtime.NumGoroutine() <= before })
}

// TestFailedReloadLocksNobodyOut fails to load a configuration without alice:
// her grant stands, and she can knock.
func TestFailedReloadLocksNobodyOut(t *testing.T) {
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := load(t, config("1", "")); err != nil {
		t.Fatal(err)
	}
	if err := admit(t, knock(t, 1)); err != nil {
		t.Fatal(err)
	}
	without := strings.Replace(string(config("2", `, "failing": {"starting": true}`)), `"id": "alice"`, `"id": "bob"`, 1)
	for i := range 10 { // apps start in random order
		if err := load(t, []byte(without)); err == nil {
			t.Fatal("was loaded")
		}
		if n := len(apptest.App(t).Running().State().Grants(nil)); n != 1 {
			t.Fatalf("%d grants stand", n)
		}
		if err := admit(t, knock(t, byte(10+i))); err != nil {
			t.Fatalf("alice is locked out: %v", err)
		}
	}
}

func TestRemovedClientLosesGrants(t *testing.T) {
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := load(t, config("1", "")); err != nil {
		t.Fatal(err)
	}
	if err := admit(t, knock(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := load(t, []byte(strings.Replace(string(config("2", "")), `"id": "alice"`, `"id": "bob"`, 1))); err != nil {
		t.Fatal(err)
	}
	if grants := apptest.App(t).Running().State().Grants(nil); len(grants) > 0 {
		t.Errorf("%d grants stand", len(grants))
	}
}
