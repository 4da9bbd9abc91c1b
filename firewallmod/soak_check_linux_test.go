// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// slack is how late the kernel may end a window that was asked for on a busy
// machine: its time begins when the kernel is told.
const slack = 2 * time.Second

// check holds the site to what TestSoak promises. Nobody knocks meanwhile, but for
// the check itself.
func (s *soak) check(when string) {
	s.Helper()
	when = fmt.Sprintf("round %d, %s", s.round.Load(), when)
	for _, port := range []string{longPort, bothPort, framePort} {
		if c := s.clients[s.rnd.IntN(len(s.clients))]; !c.knock(port, 20*time.Second) {
			s.Errorf("%s: %s is locked out of port %s", when, c.id, port)
		}
	}
	lines := s.readLog(when)
	s.checkGrants(when)
	s.throwAgain(when, lines)
	s.checkLeaks(when)
	if s.Failed() {
		s.FailNow()
	}
}

// checkGrants compares what was acknowledged, the live grants and the kernel's
// windows.
func (s *soak) checkGrants(when string) {
	s.Helper()
	type window struct{ earliest, latest time.Time } // when it ends
	windows := make(map[string]window)
	for _, service := range []string{"long", "short", "both"} {
		before := time.Now()
		of := s.windowsOf(service)
		after := time.Now()
		for address, left := range of {
			windows[service+" "+address] = window{before.Add(left), after.Add(left)}
		}
	}
	listed, ends := make(map[string]auditLine), make(map[string]time.Time)
	for _, g := range s.listed() {
		listed[g.key()] = g
		if end := ends[g.window()]; end.Before(g.ends()) {
			ends[g.window()] = g.ends()
		}
	}
	now := time.Now()
	for key, g := range s.granted {
		if g.ends().Before(now) {
			delete(s.granted, key)
			continue
		}
		live, ok := listed[key]
		if !ok || live.Grant != g.Grant || live.ends().Sub(g.ends()).Abs() > time.Second {
			s.Errorf("%s: lost: %+v, there is %+v", when, g, live)
		}
	}
	for name, end := range ends {
		if w := windows[name]; w.latest.Before(end.Add(-slack)) && end.After(now) {
			s.Errorf("%s: the window of %s ends at %v, its grant at %v", when, name, w.latest, end)
		}
	}
	for name, w := range windows {
		end, ok := ends[name]
		if !ok {
			end = now // it ended just now
		}
		s.worst.past = max(s.worst.past, w.earliest.Sub(end))
		if w.earliest.After(end.Add(slack)) {
			s.Errorf("%s: the window of %s ends at %v, its grant at %v", when, name, w.earliest, end)
		}
	}
	s.count.windows += len(windows)
	s.checkReachable(when, ends)
}

// checkReachable tries some windows from where they are for, and one that is over.
func (s *soak) checkReachable(when string, ends map[string]time.Time) {
	s.Helper()
	for _, c := range s.clients {
		for _, r := range c.runs[max(0, len(c.runs)-3):] {
			if _, ok := ends["long "+r.source.String()]; ok && r.port == longPort && !c.reachable(r.source, longPort, 10*time.Second) {
				s.Errorf("%s: %s does not get in from %s", when, c.id, r.source)
			}
		}
		source := netip.MustParseAddr(fmt.Sprint(c.net, firstSource+s.rnd.IntN(soakSources)))
		if _, ok := ends["short "+source.String()]; !ok && c.reachable(source, shortPort, 100*time.Millisecond) {
			s.Errorf("%s: %s gets in from %s without a grant", when, c.id, source)
		}
	}
}

// listed are the live grants of windows, as the admin API tells them.
func (s *soak) listed() (grants []auditLine) {
	s.Helper()
	for after := ""; ; {
		status, body := s.call(http.MethodGet, "/knock/grants?limit=10000&after="+after, "")
		var page struct {
			Grants []struct {
				ID, Service, Scope string
				Prefix             netip.Prefix
				Expires            time.Time
			}
			Next string
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || status != http.StatusOK {
			s.Fatalf("listing grants: %d %v %s", status, err, body)
		}
		for _, g := range page.Grants {
			if g.Scope != "connection" {
				grants = append(grants, auditLine{Grant: g.ID, Service: g.Service, Scope: g.Scope, Prefix: g.Prefix, Expires: float64(g.Expires.UnixNano()) / 1e9})
			}
		}
		if after = page.Next; after == "" {
			return grants
		}
	}
}
