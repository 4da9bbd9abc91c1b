// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestRefusals sends authentic knocks that must not open anything.
func TestRefusals(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	me := addr("192.0.2.1")
	py := func(a string, change func(*wire.Pyknock)) func(*knockcore.Client) []byte {
		return func(c *knockcore.Client) []byte {
			p := wire.Pyknock{Addr: addr(a), Time: wire.PyknockTime(now)}
			if change != nil {
				change(&p)
			}
			return pyknockOf(t, c, p)
		}
	}
	fw := func(change func(*wire.Fwknop)) func(*knockcore.Client) []byte {
		return func(c *knockcore.Client) []byte {
			f := wire.Fwknop{Type: wire.FwknopAccess, Allow: stranger.Addr(), Ports: ports(t, "tcp/22"), Time: now.Unix()}
			change(&f)
			return fwknopOf(t, c, f)
		}
	}
	lib := func(change func(*wire.Datagram)) func(*knockcore.Client) []byte {
		return func(c *knockcore.Client) []byte {
			d := wire.Datagram{Port: 22, Time: now.UnixMilli()}
			change(&d)
			return frame(t, c, d)
		}
	}
	remote := func(c *knockcore.Client) { c.RemoteBits4, c.RemoteBits6 = 32, 128 }
	for name, c := range map[string]struct {
		payload func(*knockcore.Client) []byte
		client  func(*knockcore.Client)
		want    knockcore.Reason
	}{
		"another address":            {py("192.0.2.9", nil), nil, knockcore.ReasonForbidden},
		"another family":             {py("2001:db8::9", nil), nil, knockcore.ReasonForbidden},
		"only IPv4 remotely":         {py("2001:db8::9", nil), func(c *knockcore.Client) { c.RemoteBits4 = 32 }, knockcore.ReasonForbidden},
		"fwknop: another address":    {fw(func(f *wire.Fwknop) { f.Allow = addr("192.0.2.9") }), nil, knockcore.ReasonForbidden},
		"mapped":                     {py("::ffff:192.0.2.66", nil), remote, knockcore.ReasonForbidden},
		"multicast":                  {py("224.0.0.1", nil), remote, knockcore.ReasonForbidden},
		"multicast IPv6":             {py("ff02::1", nil), remote, knockcore.ReasonForbidden},
		"unspecified":                {py("0.0.0.0", nil), remote, knockcore.ReasonForbidden},
		"unspecified IPv6":           {py("::", nil), remote, knockcore.ReasonForbidden},
		"broadcast":                  {py("255.255.255.255", nil), remote, knockcore.ReasonForbidden},
		"loopback":                   {py("127.0.0.1", nil), remote, knockcore.ReasonForbidden},
		"loopback IPv6":              {py("::1", nil), remote, knockcore.ReasonForbidden},
		"our own address":            {py(me.String(), nil), remote, knockcore.ReasonForbidden},
		"fwknop: our own address":    {fw(func(f *wire.Fwknop) { f.Allow = me }), remote, knockcore.ReasonForbidden},
		"stale":                      {py("192.0.2.66", func(p *wire.Pyknock) { p.Time -= 60.001 }), nil, knockcore.ReasonStale},
		"future":                     {py("192.0.2.66", func(p *wire.Pyknock) { p.Time += 60.001 }), nil, knockcore.ReasonFuture},
		"fwknop: stale":              {fw(func(f *wire.Fwknop) { f.Time -= 121 }), nil, knockcore.ReasonStale},
		"fwknop: future":             {fw(func(f *wire.Fwknop) { f.Time += 121 }), nil, knockcore.ReasonFuture},
		"fwknop: end of time":        {fw(func(f *wire.Fwknop) { f.Time = 999_999_999_999 }), nil, knockcore.ReasonFuture},
		"fwknop: beginning of time":  {fw(func(f *wire.Fwknop) { f.Time = 0 }), nil, knockcore.ReasonStale},
		"udp: stale":                 {lib(func(d *wire.Datagram) { d.Time -= 30_001 }), nil, knockcore.ReasonStale},
		"udp: future":                {lib(func(d *wire.Datagram) { d.Time += 30_001 }), nil, knockcore.ReasonFuture},
		"udp: end of time":           {lib(func(d *wire.Datagram) { d.Time = math.MaxInt64 }), nil, knockcore.ReasonFuture},
		"udp: other service":         {lib(func(d *wire.Datagram) { d.Port = 5432 }), nil, knockcore.ReasonForbidden},
		"udp: no such port":          {lib(func(d *wire.Datagram) { d.Port = 23 }), nil, knockcore.ReasonUnknownClient},
		"fwknop: other service":      {fw(func(f *wire.Fwknop) { f.Ports = ports(t, "tcp/5432") }), nil, knockcore.ReasonForbidden},
		"fwknop: one of two":         {fw(func(f *wire.Fwknop) { f.Ports = ports(t, "tcp/22", "tcp/5432") }), nil, knockcore.ReasonForbidden},
		"fwknop: no such port":       {fw(func(f *wire.Fwknop) { f.Ports = ports(t, "udp/22") }), nil, knockcore.ReasonUnknownService},
		"fwknop: NAT":                {fw(func(f *wire.Fwknop) { f.Type, f.NAT = wire.FwknopNATAccess, "10.0.0.1,22" }), nil, knockcore.ReasonUnsupported},
		"fwknop: NAT, timeout":       {fw(func(f *wire.Fwknop) { f.Type, f.NAT, f.Timeout = wire.FwknopNATTimeout, "10.0.0.1,22", time.Minute }), nil, knockcore.ReasonUnsupported},
		"fwknop: local NAT":          {fw(func(f *wire.Fwknop) { f.Type, f.NAT = wire.FwknopLocalNAT, "10.0.0.1,22" }), nil, knockcore.ReasonUnsupported},
		"fwknop: local NAT, timeout": {fw(func(f *wire.Fwknop) { f.Type, f.NAT = wire.FwknopLocalNATTimeout, "10.0.0.1,22" }), nil, knockcore.ReasonUnsupported},
		"fwknop: command":            {fw(func(f *wire.Fwknop) { f.Type, f.Ports, f.Command = wire.FwknopCommand, nil, "reboot" }), nil, knockcore.ReasonUnsupported},
		"from elsewhere":             {py("192.0.2.66", nil), func(c *knockcore.Client) { c.From = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, knockcore.ReasonForbidden},
		"not this method":            {py("192.0.2.66", nil), func(c *knockcore.Client) { c.Methods = knockcore.NewMethodSet(knockcore.MethodUDP) }, knockcore.ReasonWrongMethod},
		"no service":                 {py("192.0.2.66", nil), func(c *knockcore.Client) { c.Services = nil }, knockcore.ReasonForbidden},
		"expired client":             {py("192.0.2.66", nil), func(c *knockcore.Client) { c.Expires = now }, knockcore.ReasonForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			a := alice()
			if c.client != nil {
				c.client(a)
			}
			g := newGuard(t, setup{
				clients: []*knockcore.Client{a}, services: services(), now: now,
				local: func(ip netip.Addr) bool { return ip.IsLoopback() || ip == me },
			})
			if err := g.send(stranger, c.payload(a)); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			store := g.gate.State().Store.(*knockcore.MemoryStore)
			if len(g.granted()) > 0 || g.gate.State().Len() > 0 || store.Nonces() > 0 {
				t.Error("something is remembered")
			}
		})
	}
}

func TestOwnSourceIsRefused(t *testing.T) {
	a, me := alice(), netip.MustParseAddrPort("127.0.0.1:5000")
	g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services(), local: netip.Addr.IsLoopback})
	if err := g.send(me, frame(t, a, wire.Datagram{Port: 22, Time: g.now.UnixMilli()})); !errors.Is(err, knockcore.ReasonForbidden) {
		t.Errorf("%v", err)
	}
}

func TestLimitsAreCharged(t *testing.T) {
	a, other := alice(), alice()
	other.Secrets[0] = secret("the secret of somebody else")
	limits := knockcore.NewLimiter(knockcore.LimitConfig{Uses: 1, Every: time.Hour})
	g := newGuard(t, setup{clients: []*knockcore.Client{a}, services: services(), limits: limits})
	_ = g.send(stranger, []byte("junk without the structure of a knock"))
	if !limits.Allow(stranger.Addr(), anyMethod, time.Now()) || limits.Len() != 0 {
		t.Error("charged without a keyed check")
	}
	_ = g.send(stranger, frame(t, other, wire.Datagram{Port: 22, Time: g.now.UnixMilli()}))
	if limits.Allow(stranger.Addr(), anyMethod, time.Now()) {
		t.Error("a failed keyed check was not charged")
	}
	if err := g.send(stranger, frame(t, a, wire.Datagram{Port: 22, Time: g.now.UnixMilli()})); err != nil {
		t.Fatalf("a valid frame of an address over its limit: %v", err)
	}
	if !limits.IsGood(stranger.Addr(), time.Now()) || !limits.Allow(stranger.Addr(), anyMethod, time.Now()) {
		t.Error("a valid frame did not make the address good")
	}
}

func TestProtectedPorts(t *testing.T) {
	got := ProtectedPorts([]*knockcore.Service{
		service("a", "tcp/22", "udp/22", "tcp/20-23"), service("mosh", "udp/60000-61000"), service("edge", "tcp/65520-65535", "tcp/1-17"),
	})
	want := []uint16{22, 20, 21, 23, 60000}
	for p := 65520; p <= 65535; p++ {
		want = append(want, uint16(p))
	}
	if want = append(want, 1); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
