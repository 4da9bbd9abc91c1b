// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// fwknopStanza is a stanza of access.conf.
type fwknopStanza struct {
	line   int
	values map[string]fwknopValue
}

type fwknopValue struct {
	text string
	line int
}

// fwknopNone are directives that we have nothing for, whatever they say; fwknopOff
// are those that matter only if they say yes.
var (
	fwknopNone = map[string]string{
		"CMD_CYCLE_OPEN": "write a service with `firewall exec`", "CMD_CYCLE_CLOSE": "write a service with `firewall exec`",
		"CMD_CYCLE_TIMER": "write a service with `firewall exec`", "FORCE_NAT": "name the host's port in a layer4 route", "FORCE_SNAT": "name the host's port in a layer4 route",
		"GPG_DECRYPT_ID": "use keys", "GPG_DECRYPT_PW": "use keys", "GPG_HOME_DIR": "use keys", "GPG_REMOTE_ID": "use keys", "GPG_FINGERPRINT_ID": "use keys", "GPG_EXE": "use keys",
		"DESTINATION": "let the source listen on that address only",
	}
	fwknopOff = map[string]string{
		"ENABLE_CMD_EXEC": "clients can't run commands here", "ENABLE_CMD_SUDO_EXEC": "clients can't run commands here",
		"FORCE_MASQUERADE": "there is no NAT here", "DISABLE_DNAT": "", "FORWARD_ALL": "there is no NAT here", "GPG_REQUIRE_SIG": "use keys",
		"GPG_ALLOW_NO_PW": "use keys", "GPG_DISABLE_SIG": "use keys", "GPG_IGNORE_SIG_VERIFY_ERROR": "use keys",
	}
	fwknopKnown = []string{
		"OPEN_PORTS", "RESTRICT_PORTS", "KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "HMAC_DIGEST_TYPE", "ENCRYPTION_MODE", "FW_ACCESS_TIMEOUT",
		"MAX_FW_TIMEOUT", "REQUIRE_USERNAME", "REQUIRE_SOURCE_ADDRESS", "REQUIRE_SOURCE", "ACCESS_EXPIRE", "ACCESS_EXPIRE_EPOCH",
		"CMD_EXEC_USER", "CMD_EXEC_GROUP", "CMD_SUDO_EXEC_USER", "CMD_SUDO_EXEC_GROUP",
	}
)

// parseFwknop reads access.conf: stanzas begin with SOURCE.
func parseFwknop(b []byte, p *problems) (list []fwknopStanza) {
	for n, text := range strings.Split(string(b), "\n") {
		n++
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			continue
		}
		name, value := text, ""
		if i := strings.IndexAny(text, " \t"); i >= 0 {
			name, value = text[:i], strings.TrimSpace(text[i:])
		}
		name, value = strings.TrimSuffix(name, ":"), strings.TrimSpace(strings.TrimSuffix(value, ";"))
		switch {
		case strings.HasPrefix(name, "%"):
			p.add(n, "%s: other files are not read; import each, or put them together", name)
			continue
		case name == "SOURCE":
			list = append(list, fwknopStanza{line: n, values: make(map[string]fwknopValue)})
		case len(list) == 0:
			p.add(n, "%s stands before the first SOURCE", name)
			continue
		}
		s := list[len(list)-1]
		if first, twice := s.values[name]; twice {
			p.add(n, "%s stands twice in a stanza, first in line %d", name, first.line)
		}
		s.values[name] = fwknopValue{value, n}
	}
	if len(list) == 0 {
		p.add(0, "there is no stanza in it; one begins with SOURCE")
	}
	return list
}

// Fwknop makes a Caddyfile from fwknop's access.conf (fwknop-spa.md section 4.1).
func Fwknop(b []byte, o Options) (string, error) {
	p := o.problems(b)
	w := new(writer)
	w.header(&o, "fwknop",
		"safer: nothing is taken without a HMAC, a packet is good once also in another spelling and after",
		"a reboot, and the kernel ends what it opens. What fwknopd.conf says is not in it.")
	list := parseFwknop(b, p)
	w.open()
	w.open("knock")
	var ports []knockcore.PortRange
	names := make(map[string]bool)
	for i, s := range list {
		f := &fwknopClient{w: w, p: p, s: s}
		for _, r := range f.ports() {
			if !slices.Contains(ports, r) {
				ports = append(ports, r)
			}
		}
		f.client(fmt.Sprintf("fwknop-%d", i+1), names)
	}
	for _, r := range ports {
		w.text("")
		w.note(dropNote([]knockcore.PortRange{r}))
		w.open("service", serviceName([]knockcore.PortRange{r}), r.String())
		w.line(nil, "firewall", "nftables")
		w.close()
	}
	w.text("")
	w.open("source", "udp", ":62201")
	w.line(nil, "methods", "fwknop")
	w.close()
	w.text("")
	w.line([]string{"changed: fwknop leaves closing to rules of yours; here the services are closed, for IPv6 too"}, "firewall", "nftables")
	w.close()
	w.close()
	return w.finish(p)
}

type fwknopClient struct {
	w *writer
	p *problems
	s fwknopStanza
}

func (f *fwknopClient) ports() (list []knockcore.PortRange) {
	parse := func(name string) (list []knockcore.PortRange) {
		v, ok := f.s.values[name]
		if !ok {
			return nil
		}
		for _, text := range strings.Split(v.text, ",") {
			r, err := knockcore.ParsePortRange(strings.ToLower(strings.TrimSpace(text)))
			if err != nil {
				f.p.add(v.line, "%s: %w", name, err)
				continue
			}
			list = append(list, r)
		}
		return list
	}
	open, restricted := parse("OPEN_PORTS"), parse("RESTRICT_PORTS")
	if _, ok := f.s.values["OPEN_PORTS"]; !ok {
		f.p.add(f.s.line, "the stanza has no OPEN_PORTS, so that its key opens any port; say which ones")
	}
	seen := make(map[knockcore.PortRange]bool)
	for _, r := range restricted {
		seen[r] = true
	}
	for _, r := range open {
		if !seen[r] {
			list = append(list, r)
		}
		seen[r] = true
	}
	if len(open) > 0 && len(list) == 0 {
		f.p.add(f.s.line, "RESTRICT_PORTS takes all of OPEN_PORTS away")
	}
	return list
}

func (f *fwknopClient) value(name string) string { return f.s.values[name].text }

func (f *fwknopClient) yes(name string) bool {
	return strings.HasPrefix(strings.ToLower(f.value(name)), "y")
}

func (f *fwknopClient) client(name string, names map[string]bool) {
	f.check()
	var notes []string
	if user := f.value("REQUIRE_USERNAME"); user != "" {
		notes = append(notes, "changed: REQUIRE_USERNAME: the keys say who it is, whatever name is in the packet")
		if knockcore.ValidateID(user) == nil && !names[user] {
			name = user
		}
	}
	names[name] = true
	w := f.w
	w.text("")
	w.note(notes...)
	w.open("client", name)
	w.line(nil, "methods", "fwknop")
	f.keys()
	services := []string{"services"}
	for _, r := range f.ports0() {
		services = append(services, serviceName([]knockcore.PortRange{r}))
	}
	w.line(nil, services...)
	f.from()
	f.times()
	switch {
	case f.yes("REQUIRE_SOURCE_ADDRESS") || f.yes("REQUIRE_SOURCE"):
		w.line([]string{"changed: a packet for 0.0.0.0 opens for the address that it comes from; fwknopd refused it"}, "allow_remote", "/32", "/128")
	default:
		w.line([]string{"As in fwknop, a packet may name another address than the one that it comes from; leave it out if nobody needs that."}, "allow_remote", "/32", "/128")
	}
	w.close()
}

// ports0 is ports without complaining again.
func (f *fwknopClient) ports0() []knockcore.PortRange {
	quiet := *f
	quiet.p = new(problems)
	return quiet.ports()
}

func (f *fwknopClient) check() {
	for _, name := range slices.Sorted(maps.Keys(f.s.values)) {
		v := f.s.values[name]
		instead, none := fwknopNone[name]
		off, switchable := fwknopOff[name]
		switch {
		case name == "SOURCE":
		case name == "DESTINATION" && strings.EqualFold(v.text, "ANY"):
		case none:
			f.p.add(v.line, "%s has no equivalent; %s", name, instead)
		case switchable && f.yes(name) && off != "":
			f.p.add(v.line, "%s has no equivalent: %s", name, off)
		case switchable:
		default:
			if !slices.Contains(fwknopKnown, name) {
				f.p.add(v.line, "unknown directive %q", name)
			}
		}
	}
	if mode := f.value("ENCRYPTION_MODE"); mode != "" && !strings.EqualFold(mode, "CBC") {
		f.p.add(f.s.values["ENCRYPTION_MODE"].line, "ENCRYPTION_MODE %s has no equivalent; use CBC", mode)
	}
}

func (f *fwknopClient) keys() {
	key := func(name string) string {
		if v, ok := f.s.values[name+"_BASE64"]; ok {
			return "base64:" + v.text
		}
		return f.value(name)
	}
	enc, mac := key("KEY"), key("HMAC_KEY")
	notes := []string{"todo: keys that stand here can be read in the configuration; put them into files and write {file./path}"}
	var weak bool
	for i, text := range []string{enc, mac} {
		name := []string{"KEY", "HMAC_KEY"}[i]
		secret, err := knockcore.ParseSecret(text)
		switch {
		case text == "" && name == "HMAC_KEY":
			f.p.add(f.s.line, "the stanza has no HMAC_KEY: without one anybody who saw a packet can send it again; add one, here and at the client")
		case text == "":
			f.p.add(f.s.line, "the stanza has no KEY")
		case strings.Contains(text, "__CHANGEME__"):
			f.p.add(f.s.line, "%s is still __CHANGEME__", name)
		case err != nil:
			f.p.add(f.s.line, "%s: %w", name, err)
		case secret.Strong() != nil:
			weak = true
		}
	}
	args := []string{"fwknop", enc, mac}
	if digest := strings.ToLower(f.value("HMAC_DIGEST_TYPE")); digest != "" && digest != "sha256" {
		args = append(args, digest)
	}
	f.w.line(notes, args...)
	if weak {
		f.w.line([]string{"todo: a key is shorter than 16 bytes, so that one captured packet is enough to guess it"}, "allow_weak")
	}
}

// from writes where packets may come from.
func (f *fwknopClient) from() {
	v := f.s.values["SOURCE"]
	args := []string{"from"}
	for _, text := range strings.FieldsFunc(v.text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		if strings.EqualFold(text, "ANY") || text == "0.0.0.0/0" {
			return
		}
		prefix, err := parseMasked(text)
		if err != nil {
			f.p.add(v.line, "SOURCE: %w", err)
			continue
		}
		args = append(args, prefix.String())
	}
	if len(args) == 1 {
		f.p.add(v.line, "SOURCE says nothing")
		return
	}
	f.w.line(nil, args...)
}

// parseMasked reads an address, CIDR, or address/mask.
func parseMasked(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return knockcore.AddrPrefix(addr), nil
	}
	host, mask, _ := strings.Cut(text, "/")
	if m, err := netip.ParseAddr(mask); err == nil && m.Is4() {
		bits := 0
		b := m.As4()
		v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		for ; bits < 32 && v&(1<<(31-bits)) != 0; bits++ {
		}
		if bits < 32 && v<<bits != 0 {
			return netip.Prefix{}, fmt.Errorf("%q is no mask of a network", mask)
		}
		text = host + "/" + strconv.Itoa(bits)
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%q is no address or network", text)
	}
	return knockcore.NormalPrefix(prefix), nil
}

func (f *fwknopClient) times() {
	seconds := func(name string, otherwise int) int {
		v, ok := f.s.values[name]
		if !ok {
			return otherwise
		}
		n, err := strconv.Atoi(v.text)
		if err != nil || n <= 0 || n > 1<<30 {
			f.p.add(v.line, "%s %q is not a number of seconds", name, v.text)
			return otherwise
		}
		return n
	}
	ttl, most := seconds("FW_ACCESS_TIMEOUT", 30), seconds("MAX_FW_TIMEOUT", 300)
	f.w.line(nil, "ttl", duration(time.Duration(ttl)*time.Second))
	f.w.line(nil, "max_ttl", duration(time.Duration(max(ttl, most))*time.Second))
	if v, ok := f.s.values["ACCESS_EXPIRE_EPOCH"]; ok {
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || n < 0 || n > 1<<40 {
			f.p.add(v.line, "ACCESS_EXPIRE_EPOCH %q is not a time", v.text)
			return
		}
		f.w.line(nil, "expires", time.Unix(n, 0).UTC().Format(time.RFC3339))
	} else if v, ok := f.s.values["ACCESS_EXPIRE"]; ok {
		t, err := time.Parse("1/2/2006", v.text)
		if err != nil {
			f.p.add(v.line, "ACCESS_EXPIRE %q is not a date such as 12/31/2026", v.text)
			return
		}
		f.w.line([]string{"changed: midnight in UTC, not of this host's time zone"}, "expires", t.Format(time.DateOnly))
	}
}
