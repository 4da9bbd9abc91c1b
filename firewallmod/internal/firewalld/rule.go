// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// A rich rule has no comment, and firewalld does not tell when a timed rule ends.
// So our rules log to an NFLOG group that nobody listens to, which costs nothing,
// with a prefix that says whose they are and until when.
const (
	markGroup  = "65535"
	markPrefix = "caddy-knock "
	gateMark   = markPrefix + "gate "
)

// maxToken bounds the name of a service in a prefix; NFLOG has room for 63 bytes.
const maxToken = 30

func token(service string) string { return engine.Token(service, maxToken) }

// rule is a rich rule as we make them.
type rule struct {
	priority int
	source   netip.Prefix // not valid: everybody, of both families
	ports    string       // 22, 8000-8010
	protocol string
	mark     string
	action   string // accept, drop, reject
}

// String writes the rule in the language of firewalld.
func (r rule) String() string {
	from := ""
	if r.source.IsValid() {
		family := "ipv4"
		if r.source.Addr().Is6() {
			family = "ipv6"
		}
		from = fmt.Sprintf(` family="%s" source address="%s"`, family, r.source)
	}
	return fmt.Sprintf(`rule priority="%d"%s port port="%s" protocol="%s" nflog group="%s" prefix="%s" %s`,
		r.priority, from, r.ports, r.protocol, markGroup, r.mark, r.action)
}

// shape is what our rules look like, whatever the order of attributes.
var shape = regexp.MustCompile(`^rule((?: [a-z-]+="[^"]*")*)(?: source((?: [a-z-]+="[^"]*")+))? port((?: [a-z-]+="[^"]*")+) nflog((?: [a-z-]+="[^"]*")+) (accept|drop|reject)$`)

var attribute = regexp.MustCompile(` ([a-z-]+)="([^"]*)"`)

// parseRule reads a rule of ours; ok is false for those of others.
func parseRule(text string) (r rule, ok bool) {
	parts := shape.FindStringSubmatch(text)
	if parts == nil {
		return r, false
	}
	attributes := func(i int) map[string]string {
		m := map[string]string{}
		for _, a := range attribute.FindAllStringSubmatch(parts[i], -1) {
			m[a[1]] = a[2]
		}
		return m
	}
	head, source, port, mark := attributes(1), attributes(2), attributes(3), attributes(4)
	r = rule{ports: port["port"], protocol: port["protocol"], mark: mark["prefix"], action: parts[5]}
	if !strings.HasPrefix(r.mark, markPrefix) || mark["group"] != markGroup {
		return r, false
	}
	var err error
	if r.priority, err = strconv.Atoi(head["priority"]); err != nil {
		return r, false
	}
	if address := source["address"]; address != "" {
		if r.source, err = netip.ParsePrefix(address); err != nil {
			addr, err := netip.ParseAddr(address)
			if err != nil {
				return r, false
			}
			r.source = netip.PrefixFrom(addr, addr.BitLen())
		}
		r.source = r.source.Masked()
	}
	return r, true
}

// ports are those of the service as rich rules name them.
func ports(s *knockcore.Service) (list []rule) {
	for _, p := range s.Ports {
		text := strconv.Itoa(int(p.Low))
		if p.High != p.Low {
			text = fmt.Sprintf("%d-%d", p.Low, p.High)
		}
		for _, proto := range []knockcore.Protocol{knockcore.TCP, knockcore.UDP} {
			if p.Protocol == proto || p.Protocol == knockcore.ProtocolAny {
				list = append(list, rule{ports: text, protocol: proto.String()})
			}
		}
	}
	return list
}

// gateRules close the service.
func (c Config) gateRules(s *knockcore.Service) []rule {
	list := ports(s)
	for i := range list {
		list[i].priority, list[i].mark, list[i].action = c.priority()+1, gateMark+token(s.Name), "drop"
		if c.Reject {
			list[i].action = "reject"
		}
	}
	return list
}

// windowRules open the service.
func (c Config) windowRules(s *knockcore.Service, source netip.Prefix, expires time.Time) []rule {
	list := ports(s)
	for i := range list {
		list[i].priority, list[i].source, list[i].action = c.priority(), source, "accept"
		list[i].mark = markPrefix + token(s.Name) + " " + strconv.FormatInt(expires.UnixMilli(), 10)
	}
	return list
}

// window reads the mark of a rule that opens.
func (r rule) window() (tok string, expires time.Time, ok bool) {
	tok, ms, ok := strings.Cut(strings.TrimPrefix(r.mark, markPrefix), " ")
	n, err := strconv.ParseInt(ms, 10, 64)
	if !ok || err != nil || n <= 0 || r.action != "accept" || !r.source.IsValid() {
		return "", time.Time{}, false
	}
	return tok, time.UnixMilli(n).UTC(), true
}

// windowsOf finds the windows of which all rules stand.
func (c Config) windowsOf(rules []string, services []*knockcore.Service) engine.Windows {
	standing := map[rule]bool{}
	for _, text := range rules {
		if r, ok := parseRule(text); ok {
			standing[r] = true
		}
	}
	byToken := map[string]*knockcore.Service{}
	for _, s := range services {
		byToken[token(s.Name)] = s
	}
	windows := engine.Windows{}
	for r := range standing {
		tok, expires, ok := r.window()
		s := byToken[tok]
		if !ok || s == nil {
			continue
		}
		whole := true
		for _, part := range c.windowRules(s, r.source, expires) {
			whole = whole && standing[part]
		}
		k := engine.Key{Service: s.Name, Prefix: r.source}
		if whole && expires.After(windows[k]) {
			windows[k] = expires
		}
	}
	return windows
}
