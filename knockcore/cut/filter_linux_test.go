// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// TestFilters: the kernel does what it is asked, so that what is read does not grow
// with what others do.
func TestFilters(t *testing.T) {
	netlab.Need(t, "nft")
	lab := netlab.New(t)
	host, peer := lab.NS("host"), lab.NS("peer")
	dev, _ := lab.Link(peer, []string{"192.0.2.2/24", "2001:db8::2/64"}, host, []string{"192.0.2.1/24", "2001:db8::1/64"})
	host.RunInput("table inet x {\nchain c {\ntype filter hook input priority 0; ct state new accept\n}\n}\n", "nft", "-f", "-") // wakes conntrack
	server := map[bool]string{true: "192.0.2.1", false: "2001:db8::1"}
	for _, addr := range server {
		host.Echo("tcp", net.JoinHostPort(addr, "22"))
	}
	sources := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}
	for i := range 4 {
		sources = append(sources, netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 100+i)), netip.MustParseAddr(fmt.Sprintf("2001:db8::1:%x", i)))
		peer.Addr(dev, sources[len(sources)-2].String()+"/24")
		peer.Addr(dev, sources[len(sources)-1].String()+"/64")
	}
	for _, from := range sources {
		var c net.Conn
		var err error
		peer.Do(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: 5 * time.Second}
			c, err = d.Dial("tcp", net.JoinHostPort(server[from.Is4()], "22"))
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// When something comes back the other end stands, too.
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}

	remotes := func(prefixes ...netip.Prefix) (found []netip.Addr) {
		t.Helper()
		conn, err := dialSockets(host.FD())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		msgs, err := list(conn, remoteFilter(prefixes))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			if ends, _, ok := socket(m.Data); ok {
				found = append(found, ends.remote.Addr())
			}
		}
		slices.SortFunc(found, netip.Addr.Compare)
		return found
	}
	prefix := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	nobody := make([]netip.Prefix, 0, maxConditions)
	for i := range maxConditions - 1 {
		nobody = append(nobody, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32))
	}
	for _, c := range []struct {
		prefixes []netip.Prefix
		want     int
	}{
		{nil, len(sources)},
		{[]netip.Prefix{prefix("192.0.2.2/32")}, 1},
		{[]netip.Prefix{prefix("2001:db8::1:2/128")}, 1},
		{[]netip.Prefix{prefix("192.0.2.100/30"), prefix("2001:db8::2/128")}, 5},
		{[]netip.Prefix{prefix("2001:db8::1:0/112"), prefix("192.0.2.103/32"), prefix("192.0.2.2/32")}, 6},
		{[]netip.Prefix{prefix("198.51.100.0/24")}, 0},
		{append(nobody, prefix("192.0.2.101/32")), 1},
		{append(slices.Clone(nobody), nobody[:2]...), len(sources)}, // too many to ask for
	} {
		found := remotes(c.prefixes...)
		if len(found) != c.want {
			t.Errorf("%v: %v", c.prefixes, found)
		}
		for _, p := range c.prefixes {
			if slices.ContainsFunc(sources, p.Contains) && !slices.ContainsFunc(found, p.Contains) {
				t.Errorf("%v: nothing of %v", c.prefixes, p)
			}
		}
	}

	began := func(from ...netip.Addr) map[netip.Addr]int {
		t.Helper()
		flows, err := dump(host.FD(), from)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[netip.Addr]int)
		for _, f := range flows {
			found[f.TupleOrig.IP.SourceAddress]++
			back := conntrack.IPTuple{SourceAddress: f.TupleOrig.IP.DestinationAddress, DestinationAddress: f.TupleOrig.IP.SourceAddress}
			if f.TupleReply.IP != back || f.TupleOrig.Proto.Protocol != 6 || f.TupleOrig.Proto.DestinationPort != 22 || f.TupleReply.Proto.SourcePort != 22 {
				t.Errorf("an entry reads as %+v", f)
			}
		}
		return found
	}
	if all := began(); len(all) != len(sources) {
		t.Errorf("conntrack has %v", all)
	}
	if one := began(sources[0]); len(one) != 1 || one[sources[0]] != 1 {
		t.Errorf("of %v conntrack has %v", sources[0], one)
	}
	if two := began(sources[2], sources[3]); two[sources[2]] != 1 || two[sources[3]] != 1 || two[sources[0]] != 0 {
		t.Errorf("of %v and %v conntrack has %v", sources[2], sources[3], two)
	}
}

func FuzzFlow(f *testing.F) {
	f.Add([]byte{12, 0, 1, 0x80, 8, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { parseFlow(b) })
}
