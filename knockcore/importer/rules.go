// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// rule is what a common firewall command comes to.
type rule struct {
	add   bool
	six   bool // ip6tables
	ports []knockcore.PortRange
	drop  bool // of everybody's packets
	iface string
	set   string // of nftables or ipset, whose owner's rules know the ports
	ipset bool
	// timeout is when it ends by itself, 0 if it does not.
	timeout time.Duration
}

// words of iptables that change nothing about what we make of it.
var iptablesModules = []string{"tcp", "udp", "state", "conntrack", "comment", "multiport"}

// parseIPTables understands iptables commands that accept a source at ports, or
// drop ports; nil if it is another one.
func parseIPTables(argv []string, address string) *rule {
	if len(argv) == 0 {
		return nil
	}
	r := new(rule)
	switch path.Base(argv[0]) {
	case "iptables", "iptables-nft", "iptables-legacy":
	case "ip6tables", "ip6tables-nft", "ip6tables-legacy":
		r.six = true
	default:
		return nil
	}
	var source, proto, ports, target, chain string
	for i := 1; i < len(argv); i++ {
		arg := func() string {
			if i++; i < len(argv) {
				return argv[i]
			}
			return ""
		}
		switch argv[i] {
		case "-A", "--append":
			r.add, chain = true, arg()
		case "-I", "--insert":
			r.add, chain = true, arg()
			if i+1 < len(argv) && isNumber(argv[i+1]) {
				i++
			}
		case "-D", "--delete":
			chain = arg()
		case "-s", "--source", "--src":
			source = arg()
		case "-p", "--protocol", "--proto":
			proto = strings.ToLower(arg())
		case "--dport", "--destination-port", "--dports", "--destination-ports":
			ports = arg()
		case "-j", "--jump":
			target = arg()
		case "-i", "--in-interface":
			r.iface = arg()
		case "-m", "--match":
			if !slices.Contains(iptablesModules, arg()) {
				return nil
			}
		case "--state", "--ctstate":
			if !strings.Contains(arg(), "NEW") {
				return nil
			}
		case "--comment":
			arg()
		case "--reject-with":
			arg()
		case "-w", "--wait":
			if i+1 < len(argv) && isNumber(argv[i+1]) {
				i++
			}
		case "--syn":
		default:
			return nil
		}
	}
	for _, suffix := range []string{"/32", "/128"} {
		source = strings.TrimSuffix(source, suffix)
	}
	switch {
	case chain == "" || chain == "OUTPUT" || chain == "FORWARD" || ports == "" || proto != "tcp" && proto != "udp":
		return nil
	case target == "ACCEPT" && source == address:
	case (target == "DROP" || target == "REJECT") && source == "":
		r.drop = true
	default:
		return nil
	}
	for _, p := range strings.Split(ports, ",") {
		pr, err := knockcore.ParsePortRange(proto + "/" + strings.ReplaceAll(p, ":", "-"))
		if err != nil {
			return nil
		}
		r.ports = append(r.ports, pr)
	}
	return r
}

// parseNftSet understands `nft add element FAMILY TABLE SET { ADDRESS … }`; ok is
// false if it is another command. add is false for delete.
func parseNftSet(argv []string, address string) (set string, add bool, timeout time.Duration, ok bool) {
	if len(argv) < 3 || path.Base(argv[0]) != "nft" {
		return "", false, 0, false
	}
	// nft joins its arguments with blanks before it reads them.
	const marker = "\x00"
	words := strings.Fields(strings.NewReplacer(address, marker, "{", " { ", "}", " } ").Replace(strings.Join(argv[1:], " ")))
	if len(words) < 7 || words[1] != "element" || words[0] != "add" && words[0] != "delete" {
		return "", false, 0, false
	}
	family := "ip"
	rest := words[2:]
	switch rest[0] {
	case "inet", "ip", "ip6":
		family, rest = rest[0], rest[1:]
	}
	if len(rest) < 5 || rest[2] != "{" || rest[3] != marker || rest[len(rest)-1] != "}" {
		return "", false, 0, false
	}
	if middle := rest[4 : len(rest)-1]; len(middle) > 0 {
		var err error
		if len(middle) != 2 || middle[0] != "timeout" {
			return "", false, 0, false
		}
		if timeout, err = time.ParseDuration(middle[1]); err != nil || timeout <= 0 {
			return "", false, 0, false
		}
	}
	return family + " " + rest[0] + " " + rest[1], words[0] == "add", timeout, true
}

// parseIPSet understands `ipset add SET ADDRESS` and `ipset del SET ADDRESS`.
func parseIPSet(argv []string) (set string, add bool, timeout time.Duration, ok bool) {
	if len(argv) == 0 || path.Base(argv[0]) != "ipset" {
		return "", false, 0, false
	}
	var words []string
	for _, word := range argv[1:] {
		switch word {
		case "-exist", "-!", "-q", "-quiet":
		default:
			words = append(words, word)
		}
	}
	if len(words) < 3 || words[2] != addressHolder {
		return "", false, 0, false
	}
	switch words[0] {
	case "add", "-A":
		add = true
	case "del", "-D":
	default:
		return "", false, 0, false
	}
	if rest := words[3:]; len(rest) > 0 {
		if len(rest) != 2 || rest[0] != "timeout" || !isNumber(rest[1]) || len(rest[1]) > 7 {
			return "", false, 0, false
		}
		timeout = time.Duration(atoi(rest[1])) * time.Second
	}
	return words[1], add, timeout, true
}

// parseRule understands commands of iptables and, if it is said what their sets
// guard, of nft and ipset.
func parseRule(argv []string, guarded []knockcore.PortRange) *rule {
	if r := parseIPTables(argv, addressHolder); r != nil {
		return r
	}
	if set, add, timeout, ok := parseIPSet(argv); ok && len(guarded) > 0 {
		return &rule{add: add, set: set, timeout: timeout, ports: guarded, ipset: true}
	}
	if set, add, timeout, ok := parseNftSet(argv, addressHolder); ok && len(guarded) > 0 {
		return &rule{add: add, set: set, timeout: timeout, ports: guarded, six: strings.HasPrefix(set, "ip6 ")}
	}
	return nil
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// undoes reports whether one rule undoes the other.
func (r *rule) undoes(o *rule) bool {
	return r != nil && o != nil && !r.add && o.add && slices.Equal(r.ports, o.ports) && r.set == o.set
}

// serviceName is a name for what listens at ports.
func serviceName(ports []knockcore.PortRange) string {
	known := map[string]string{
		"tcp/22": "ssh", "tcp/25": "smtp", "tcp/53": "dns-tcp", "udp/53": "dns", "tcp/80": "http", "tcp/443": "https",
		"udp/1194": "openvpn", "tcp/3306": "mysql", "tcp/3389": "rdp", "tcp/5432": "postgresql", "udp/51820": "wireguard",
	}
	var names []string
	for _, p := range ports {
		name := known[p.String()]
		if name == "" {
			name = strings.ReplaceAll(p.String(), "/", "-")
		}
		names = append(names, name)
	}
	return strings.Join(names, "-")
}

func portTexts(ports []knockcore.PortRange) []string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = p.String()
	}
	return texts
}

// dropNote points out that somebody's rule would be in the way.
func dropNote(ports []knockcore.PortRange) string {
	return fmt.Sprintf("todo: take your own rules away that drop %s: caddy-knock closes it itself, and can't open what another table drops", strings.Join(portTexts(ports), ", "))
}
