// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func someItems() (names []string, items []*item) {
	now := time.UnixMilli(1_790_000_000_000)
	add := func(name string, i *item) { names, items = append(names, name), append(items, i) }
	for n, g := range []*knockcore.Grant{
		{Client: "alice", Service: "ssh", Method: knockcore.MethodUDP, Scope: knockcore.ScopeAddress, Prefix: netip.MustParsePrefix("192.0.2.1/32"), Uses: -1},
		{Client: "bob", Service: "vault", Method: knockcore.MethodTCPSYN, Scope: knockcore.ScopeSession, Prefix: netip.MustParsePrefix("2001:db8::/64"), Uses: 3, Session: []byte("0123456789abcdef")},
		{Client: "by hand", Service: "ssh", Scope: knockcore.ScopeAddress, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Uses: -1},
	} {
		g.ID, g.Source, g.Made, g.Expires = knockcore.GrantID{byte(n + 1)}, netip.MustParseAddr("192.0.2.1"), now, now.Add(time.Hour)
		add(grantName(g.ID), &item{grant: g, version: 7, instance: "i"})
	}
	ban := knockcore.Ban{Prefix: netip.MustParsePrefix("2001:db8:1::/64"), Made: now, Until: now.Add(time.Minute), Strikes: 3}
	add(banName(ban.Prefix), &item{ban: &ban, version: 7, instance: "i"})
	return names, items
}

func describe(i *item) string {
	if i.ban != nil {
		return fmt.Sprintf("%+v %d %s", *i.ban, i.version, i.instance)
	}
	return fmt.Sprintf("%+v %d %s", *i.grant, i.version, i.instance)
}

func TestItems(t *testing.T) {
	names, items := someItems()
	for n, i := range items {
		payload, err := i.payload(time.Time.UnixMilli)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseValue(names[n], "7 i "+payload, time.UnixMilli)
		if err != nil {
			t.Fatal(err)
		}
		if describe(got) != describe(i) {
			t.Errorf("%s became %s", describe(i), describe(got))
		}
		for _, name := range []string{"", "g", "x" + names[n], strings.ToUpper(names[n])} {
			if _, err := parseValue(name, "7 i "+payload, time.UnixMilli); err == nil {
				t.Errorf("%s passes as %q", names[n], name)
			}
		}
		for cut := range len(payload) {
			if _, err := parseValue(names[n], "7 i "+payload[:cut], time.UnixMilli); err == nil {
				t.Errorf("the first %d bytes of %s are taken", cut, payload)
			}
		}
	}
	if _, err := (&item{grant: &knockcore.Grant{Client: strings.Repeat("x", maxName+1)}}).payload(time.Time.UnixMilli); err == nil {
		t.Error("a client's name without end is taken")
	}
}

// FuzzItem: whatever stands in the server, reading it gives an error or an item
// that can be written and read again.
func FuzzItem(f *testing.F) {
	names, items := someItems()
	for n, i := range items {
		payload, _ := i.payload(time.Time.UnixMilli)
		f.Add(names[n], "7 i "+payload)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		i, err := parseValue(name, value, time.UnixMilli)
		if err != nil {
			return
		}
		if (i.grant == nil) == (i.ban == nil) {
			t.Fatal("not exactly one of grant and ban")
		}
		payload, err := i.payload(time.Time.UnixMilli)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseItem(name, payload, i.version, i.instance, time.UnixMilli)
		if err != nil {
			t.Fatalf("%q: %v", payload, err)
		}
		if i.grant != nil && i.grant.Uses <= maxUses && describe(again) != describe(i) {
			t.Fatalf("%s became %s", describe(i), describe(again))
		}
	})
}

// FuzzEntry does the same for the log.
func FuzzEntry(f *testing.F) {
	f.Add("1790000000000-0", "s 8 7 i gaaaa {}")
	name, payload := nonceEntry(knockcore.Nonce{Key: knockcore.ReplayKey{1}, Client: "alice", Time: time.UnixMilli(5)})
	f.Add("1-1", "n 8 8 i "+name+" "+payload)
	f.Add("1-1", "r 8 8 i - {\"client\":\"alice\"}")
	f.Fuzz(func(t *testing.T, id, text string) {
		e, err := parseEntry(id, text)
		if err != nil {
			return
		}
		if n, err := parseNonce(e); err == nil {
			if name, payload := nonceEntry(n); !strings.EqualFold(name, e.name) || payload == "" {
				t.Fatalf("%q became %q %q", text, name, payload)
			}
		}
		s := &Store{}
		s.settled.L = &s.mu
		if e.kind == 'r' {
			s.obey(e)
		}
	})
}
