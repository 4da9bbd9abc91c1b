// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// mark is the comment of the first rule of our base chain.
const mark = "made-by-caddy-knock"

// maxChain is the longest name of a chain.
const maxChain = 28

// stem is what the names of a family's programs begin with.
func stem(v6 bool) string {
	if v6 {
		return "ip6tables"
	}
	return "iptables"
}

// serviceChain is the chain that lets in who has a window of the service.
func (c Config) serviceChain(service string) string {
	return c.chain() + "-" + engine.Token(service, maxChain-len(c.chain())-1)
}

// probeChain is for trying what the kernel knows; no service has this name.
func (c Config) probeChain() string { return c.chain() + "-__probe" }

// owns reports whether a chain of this name is ours.
func (c Config) owns(chain string) bool {
	return chain == c.chain() || strings.HasPrefix(chain, c.chain()+"-")
}

// baseRules are those of the base chain: who is of no concern; then, for packets
// that begin something, the chains of the services; then the end.
func (c Config) baseRules(v6 bool, services []*knockcore.Service) []string {
	rules := []string{"-i lo -m comment --comment " + mark + " -j RETURN"}
	for _, p := range c.Allow {
		if p.Addr().Is6() == v6 {
			if p.Bits() == 0 {
				rules = append(rules, "-j RETURN")
			} else {
				rules = append(rules, "-s "+p.Masked().String()+" -j RETURN")
			}
		}
	}
	var ends []string
	for _, s := range services {
		for _, r := range s.Ports {
			for _, proto := range []knockcore.Protocol{knockcore.TCP, knockcore.UDP} {
				if r.Protocol != proto && r.Protocol != knockcore.ProtocolAny {
					continue
				}
				for _, to := range c.destinations(v6, s) {
					match := to + beginning(proto, r)
					rules = append(rules, match+" -j "+c.serviceChain(s.Name))
					ends = append(ends, match+" -j "+c.verdict(v6, proto, s))
				}
			}
		}
	}
	return append(rules, ends...)
}

// destinations match the packets that a service is gated on.
func (c Config) destinations(v6 bool, s *knockcore.Service) []string {
	if !c.prerouting() {
		return []string{""}
	}
	list := []string{"-m addrtype --dst-type LOCAL "}
	for _, p := range s.Destinations {
		if p.Addr().Is6() == v6 {
			list = append(list, "-d "+p.Masked().String()+" ")
		}
	}
	return list
}

// beginning matches packets with which strangers begin: sessions that go on, also
// those older than connection tracking, pass.
func beginning(proto knockcore.Protocol, r knockcore.PortRange) string {
	ports := fmt.Sprint(r.Low)
	if r.High != r.Low {
		ports = fmt.Sprintf("%d:%d", r.Low, r.High)
	}
	if proto == knockcore.TCP {
		return "-p tcp -m tcp --dport " + ports + " --tcp-flags SYN,ACK SYN"
	}
	return "-p udp -m udp --dport " + ports + " -m conntrack ! --ctstate ESTABLISHED"
}

func (c Config) verdict(v6 bool, proto knockcore.Protocol, s *knockcore.Service) string {
	switch {
	case !c.RejectAll && !slices.Contains(c.Reject, s.Name):
		return "DROP"
	case proto == knockcore.TCP:
		return "REJECT --reject-with tcp-reset"
	case v6:
		return "REJECT --reject-with icmp6-port-unreachable"
	default:
		return "REJECT --reject-with icmp-port-unreachable"
	}
}

// installScript makes the gate out of whatever stands. Chains of services that
// are gone go too.
func (c Config) installScript(v6 bool, now Saved, services []*knockcore.Service, windows func(service string) []string) string {
	table, caller := c.place()
	base := c.chain()
	var head, body, tail strings.Builder
	fmt.Fprintf(&head, "*%s\n:%s - [0:0]\n", table, base)
	wanted := map[string]bool{base: true}
	for _, s := range services {
		chain := c.serviceChain(s.Name)
		wanted[chain] = true
		fmt.Fprintf(&head, ":%s - [0:0]\n", chain)
		for _, rule := range windows(s.Name) {
			fmt.Fprintf(&body, "-A %s %s\n", chain, rule)
		}
	}
	for _, rule := range c.baseRules(v6, services) {
		fmt.Fprintf(&body, "-A %s %s\n", base, rule)
	}
	body.WriteString(c.callScript(now, caller))
	for _, chain := range now.names() {
		if c.owns(chain) && !wanted[chain] {
			fmt.Fprintf(&head, ":%s - [0:0]\n", chain)
			fmt.Fprintf(&tail, "-X %s\n", chain)
		}
	}
	return head.String() + body.String() + tail.String() + "COMMIT\n"
}

// callScript makes the call of our base chain the caller's first rule.
func (c Config) callScript(now Saved, caller string) string {
	call := "-j " + c.chain()
	if now.firstOnly(caller, call) {
		return ""
	}
	var b strings.Builder
	for range now.count(caller, call) {
		fmt.Fprintf(&b, "-D %s %s\n", caller, call)
	}
	fmt.Fprintf(&b, "-I %s 1 %s\n", caller, call)
	return b.String()
}

// removeScript takes all that is ours away; "" if there is nothing.
func (c Config) removeScript(now Saved) string {
	table, caller := c.place()
	var head, tail strings.Builder
	for range now.count(caller, "-j "+c.chain()) {
		fmt.Fprintf(&head, "-D %s -j %s\n", caller, c.chain())
	}
	flush := ""
	for _, chain := range now.names() {
		if c.owns(chain) {
			flush += fmt.Sprintf(":%s - [0:0]\n", chain)
			fmt.Fprintf(&tail, "-X %s\n", chain)
		}
	}
	if flush == "" {
		return ""
	}
	return "*" + table + "\n" + flush + head.String() + tail.String() + "COMMIT\n"
}
