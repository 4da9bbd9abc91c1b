// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Print writes the closed rule set, without any window, as text for `nft -f`:
// for a boot unit that closes the services before the network comes up. Loading
// it again changes nothing, and an [Engine] adopts the table.
func Print(cfg Config, services []*knockcore.Service) (string, error) {
	if err := cfg.Validate(); err != nil {
		return "", err
	}
	if len(cfg.Sets) > 0 {
		return "", errOwnSetsPrint
	}
	rs, err := build(cfg, withBans(services, cfg.Bans), nil)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#!/usr/sbin/nft -f\n# Keeps services closed until somebody knocks. Printed by caddy-knock.\n\n")
	// The first line makes sure that there is something to delete: one
	// transaction, so the services are closed throughout.
	fmt.Fprintf(&b, "table inet %s\ndelete table inet %[1]s\n", rs.table)
	rs.write(&b)
	return b.String(), nil
}

func (rs *ruleset) write(b *strings.Builder) {
	fmt.Fprintf(b, "table inet %s {\n", rs.table)
	for _, name := range rs.counters {
		fmt.Fprintf(b, "\tcounter %s { }\n", name)
	}
	for _, s := range rs.sets {
		fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", s.name, s.kind)
		if s.timed() {
			b.WriteString("\t\tflags timeout\n")
		}
		if s.comment != "" {
			fmt.Fprintf(b, "\t\tcomment %q\n", s.comment)
		}
		b.WriteString("\t}\n")
	}
	for _, c := range rs.chains {
		fmt.Fprintf(b, "\tchain %s {\n", c.name)
		if c.hook != "" {
			fmt.Fprintf(b, "\t\ttype filter hook %s priority %d; policy accept;\n", c.hook, c.priority)
		}
		for _, r := range c.rules {
			fmt.Fprintf(b, "\t\t%s\n", r.text())
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
}

// String is the type as nft writes it.
func (k setKind) String() string {
	switch k {
	case kindAddr4:
		return "ipv4_addr"
	case kindAddr6:
		return "ipv6_addr"
	case kindConn4:
		return "ipv4_addr . inet_service . ipv4_addr . inet_service"
	case kindConn6:
		return "ipv6_addr . inet_service . ipv6_addr . inet_service"
	default:
		return "mark"
	}
}

func (r rule) text() string {
	var parts []string
	for _, m := range r.when {
		parts = append(parts, m.text())
	}
	if r.counter != "" {
		parts = append(parts, "counter name "+r.counter)
	}
	if r.log != nil {
		parts = append(parts, r.log.text())
	}
	parts = append(parts, r.then.text())
	if r.comment != "" {
		parts = append(parts, fmt.Sprintf("comment %q", r.comment))
	}
	return strings.Join(parts, " ")
}

func (v verdict) text() string {
	switch v.kind {
	case toDrop:
		return "drop"
	case toReset:
		return "reject with tcp reset"
	case toRefuse:
		return "reject with icmpx type port-unreachable"
	case toContinue:
		return "continue"
	case toChain:
		return "goto " + v.chain
	case toPorts:
		var list []string
		for _, p := range v.ports {
			list = append(list, fmt.Sprintf("%v . %d : goto %s", p.proto, p.port, p.chain))
		}
		return "meta l4proto . th dport vmap { " + strings.Join(list, ", ") + " }"
	default:
		return "accept"
	}
}

func (m matchInterface) text() string { return fmt.Sprintf("iifname %q", m.name) }
func (m matchProtocol) text() string  { return "meta l4proto " + m.proto.String() }
func (matchNotSyn) text() string      { return "tcp flags & (syn | ack) != syn" }
func (m matchState) text() string     { return "ct state " + string(m.state) }
func (matchReply) text() string       { return "ct direction reply" }
func (matchToHost) text() string {
	return "fib daddr type { local, broadcast, anycast, multicast }"
}

func (m matchAddr) text() string {
	field := "daddr"
	if m.source {
		field = "saddr"
	}
	if m.prefix.Bits() == 0 {
		return "meta nfproto " + nfproto(m.prefix)
	}
	return fmt.Sprintf("%s %s %s", ipWord(m.prefix.Addr().Is6()), field, m.prefix.Masked())
}

func (m matchWindow) text() string {
	mask := ""
	if !m.group.exact() {
		mask = "& " + m.group.mask().String() + " "
	}
	return fmt.Sprintf("%s saddr %s@%s", ipWord(m.group.v6), mask, m.group.setName())
}

func (m matchConn) text() string {
	ip := ipWord(m.v6)
	return fmt.Sprintf("%s saddr . tcp sport . %s daddr . tcp dport @%s", ip, ip, m.set)
}

func (m matchPorts) text() string {
	return fmt.Sprintf("%v dport %d-%d", m.ports.Protocol, m.ports.Low, m.ports.High)
}

// mask is the netmask of the group's prefix length.
func (g group) mask() netip.Addr {
	ones := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if g.v6 {
		var a [16]byte
		for i := range a {
			a[i] = 255
		}
		ones = netip.AddrFrom16(a)
	}
	return netip.PrefixFrom(ones, g.bits).Masked().Addr()
}

func ipWord(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

func nfproto(p netip.Prefix) string {
	if p.Addr().Is6() {
		return "ipv6"
	}
	return "ipv4"
}
