// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// fwknopRCKnown are what a .fwknoprc may say besides what FwknopRC reads, without
// changing anything for us.
var fwknopRCKnown = map[string]string{
	"VERBOSE": "", "TIME_OFFSET": "", "USE_WGET_USER_AGENT": "", "WGET_CMD": "", "RESOLVE_URL": "", "RESOLVE_HTTP_ONLY": "", "RESOLVE_IP_HTTPS": "",
	"DIGEST_TYPE": "", "HTTP_USER_AGENT": "", "USE_HMAC": "",
}

// FwknopRC makes profiles from a .fwknoprc: one for each stanza that names a
// server. What [default] says counts in all.
func FwknopRC(b []byte, o Options) ([]Profile, error) {
	p := o.problems(b)
	type stanza struct {
		name   string
		line   int
		values map[string]fwknopValue
	}
	var list []*stanza
	defaults := make(map[string]fwknopValue)
	var current map[string]fwknopValue
	for n, text := range strings.Split(string(b), "\n") {
		n++
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		if text[0] == '[' {
			name := strings.TrimSpace(strings.TrimSuffix(text[1:], "]"))
			if name == "default" {
				current = defaults
				continue
			}
			s := &stanza{name: name, line: n, values: make(map[string]fwknopValue)}
			list, current = append(list, s), s.values
			continue
		}
		i := strings.IndexAny(text, " \t=:")
		if i < 0 || current == nil {
			p.add(n, "%.40q is no setting of a stanza", text)
			continue
		}
		current[text[:i]] = fwknopValue{strings.TrimSpace(strings.TrimSuffix(strings.TrimLeft(text[i:], " \t=:"), ";")), n}
	}
	if _, ok := defaults["SPA_SERVER"]; ok {
		list = append(list, &stanza{name: "default", values: make(map[string]fwknopValue)})
	}
	if len(list) == 0 {
		p.add(0, "there is no stanza in it that names a server")
	}
	var profiles []Profile
	for _, s := range list {
		for name, v := range defaults {
			if _, ok := s.values[name]; !ok {
				s.values[name] = v
			}
		}
		if profile, ok := fwknopProfile(p, s.name, s.line, s.values); ok {
			profiles = append(profiles, profile)
		}
	}
	return profiles, p.err()
}

func fwknopProfile(p *problems, name string, line int, values map[string]fwknopValue) (Profile, bool) {
	before := len(p.list)
	k := &knockclient.ProfileKnock{Method: knockcore.MethodFwknop, NoFrame: true}
	profile := Profile{Name: name, Profile: &knockclient.Profile{Client: name, Knock: k}}
	if err := knockcore.ValidateID(name); err != nil {
		p.add(line, "stanza %q: %w", name, err)
	}
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	secret := func(v fwknopValue, prefix string) (s knockcore.Secret) {
		s, err := knockcore.ParseSecret(prefix + v.text)
		if err != nil {
			p.add(v.line, "%w", err)
		}
		return s
	}
	for _, key := range keys {
		v := values[key]
		no := func(format string, args ...any) { p.add(v.line, key+" "+format, args...) }
		yes := strings.HasPrefix(strings.ToLower(v.text), "y")
		switch key {
		case "SPA_SERVER":
			profile.Server = v.text
		case "SPA_SERVER_PORT":
			n, err := strconv.ParseUint(v.text, 10, 16)
			if err != nil || n == 0 {
				no("%q is no port", v.text)
			}
			k.Port = uint16(n)
		case "SPA_SERVER_PROTO":
			if !strings.EqualFold(v.text, "udp") {
				no("%s has no equivalent; packets go by udp", v.text)
			}
		case "ALLOW_IP":
			switch {
			case strings.EqualFold(v.text, "source"), v.text == "0.0.0.0":
			case strings.EqualFold(v.text, "resolve"):
				profile.Notes = append(profile.Notes, "changed: ALLOW_IP resolve: nobody is asked for the address; the server takes the one that it sees")
			default:
				addr, err := netip.ParseAddr(v.text)
				if err != nil {
					no("%q is no address", v.text)
				}
				k.Address = addr
			}
		case "ACCESS":
			for _, text := range strings.Split(v.text, ",") {
				r, err := knockcore.ParsePortRange(strings.ToLower(strings.TrimSpace(text)))
				if err != nil {
					no("%w", err)
				}
				k.Ports = append(k.Ports, r)
			}
		case "KEY":
			if _, ok := values["KEY_BASE64"]; !ok {
				k.Secret = secret(v, "")
			}
		case "KEY_BASE64":
			k.Secret = secret(v, "base64:")
		case "HMAC_KEY":
			if _, ok := values["HMAC_KEY_BASE64"]; !ok {
				k.HMACSecret = secret(v, "")
			}
		case "HMAC_KEY_BASE64":
			k.HMACSecret = secret(v, "base64:")
		case "HMAC_DIGEST_TYPE":
			k.HMAC = strings.ToLower(v.text)
		case "FW_TIMEOUT":
			n, err := strconv.ParseUint(v.text, 10, 16)
			if err != nil {
				no("%q is no number of seconds", v.text)
			}
			k.OpenFor = time.Duration(n) * time.Second
		case "SPOOF_USER":
			k.User = v.text
		case "SPOOF_SOURCE_IP", "NAT_ACCESS", "NAT_LOCAL", "NAT_RAND_PORT", "NAT_PORT", "NAT_DNAT", "RAND_PORT", "USE_GPG", "USE_GPG_AGENT", "GPG_RECIPIENT", "GPG_SIGNER",
			"GPG_HOMEDIR", "GPG_HOME_DIR", "SERVER_COMMAND", "HTTP_PROXY", "SPA_SOURCE_PORT", "SPA_ICMP_TYPE", "SPA_ICMP_CODE", "USE_HTTP", "SERVER_RESOLVE_IPV4", "KEY_FILE", "HMAC_KEY_FILE":
			if yes || v.text != "" && !strings.HasPrefix(strings.ToLower(v.text), "n") {
				no("has no equivalent")
			}
		case "ENCRYPTION_MODE":
			if !strings.EqualFold(v.text, "CBC") && !strings.EqualFold(v.text, "rijndael") {
				no("%s has no equivalent; use CBC", v.text)
			}
		default:
			if _, ok := fwknopRCKnown[key]; !ok {
				no("is not known")
			}
		}
	}
	switch {
	case profile.Server == "":
		p.add(line, "stanza %s names no SPA_SERVER", name)
	case len(p.list) == before:
		if err := profile.Validate(); err != nil {
			p.add(line, "stanza %s: %w", name, err)
		}
	}
	return profile, len(p.list) == before
}
