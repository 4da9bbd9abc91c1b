// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

func TestMain(m *testing.M) { program.Main(m) }

// TestEnormousListing lists 100,000 grants, by the admin API and by the command, while
// others are made and revoked: each comes once, in pages of a bounded size.
func TestEnormousListing(t *testing.T) {
	n := 100_000 / testScale
	if testing.Short() {
		n = 10_000
	}
	a := startAdmin(t, adminClients+"\n\tallow_local\n\tstore memory")
	gate := apptest.App(t).Running()
	made := make(map[string]bool, n)
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		g, err := gate.GrantByHand(t.Context(), "bob", "ssh", netip.PrefixFrom(addr, 32), 0)
		if err != nil {
			t.Fatal(err)
		}
		made[g.ID.String()] = true
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				t.Logf("%d grants were made and revoked meanwhile", i)
				return
			case <-time.After(time.Millisecond):
			}
			g, err := gate.GrantByHand(t.Context(), "alice", "ssh", netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32), 0)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := gate.Revoke(t.Context(), g.ID, "the test"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	check := func(what string, ids []string, last *string, seen map[string]bool) {
		t.Helper()
		for _, id := range ids {
			if id <= *last {
				t.Fatalf("%s: %s after %s", what, id, *last)
			}
			if *last = id; made[id] {
				seen[id] = true
			}
		}
	}

	seen, last, pages := make(map[string]bool), "", 0
	for next := ""; ; pages++ {
		var page grantPage
		a.get("/knock/grants?limit=10000&client=bob&after="+next, &page)
		ids := make([]string, len(page.Grants))
		for i, g := range page.Grants {
			ids[i] = g.ID
		}
		if len(ids) > 10_000 {
			t.Fatalf("a page of %d", len(ids))
		}
		check("page", ids, &last, seen)
		if next = page.Next; next == "" {
			break
		}
	}
	if len(seen) != n || pages < n/10_000-1 {
		t.Errorf("%d of %d grants on %d pages", len(seen), n, pages)
	}

	table := strings.Split(strings.TrimSpace(program.Run(t, program.Caddy(t), "knock", "grants", "--address", a.address)), "\n")
	var ids []string
	for _, line := range table[1:] {
		id, _, _ := strings.Cut(line, " ")
		ids = append(ids, id)
	}
	seen, last = make(map[string]bool), ""
	if check("table", ids, &last, seen); len(seen) != n {
		t.Errorf("the table has %d of %d grants", len(seen), n)
	}

	seen, last = make(map[string]bool), ""
	lines := strings.Split(strings.TrimSpace(program.Run(t, program.Caddy(t), "knock", "grants", "--json", "--address", a.address)), "\n")
	for _, line := range lines {
		var page grantPage
		if err := json.Unmarshal([]byte(line), &page); err != nil {
			t.Fatalf("%v in %.100s", err, line)
		}
		var ids []string
		for _, g := range page.Grants {
			ids = append(ids, g.ID)
		}
		check("JSON", ids, &last, seen)
	}
	if len(seen) != n || len(lines) < n/10_000 {
		t.Errorf("%d of %d grants in %d lines of JSON", len(seen), n, len(lines))
	}
	close(stop)
	others.Wait()
	if status, body := a.call(http.MethodDelete, "/knock/grants?client=bob", ""); status != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`"revoked":%d`, n)) {
		t.Errorf("revoking: %d %s", status, body)
	}
}
