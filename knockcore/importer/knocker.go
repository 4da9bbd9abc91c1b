// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// knockerFile is the configuration of a Knocker server (knocker-http.md section 16).
type knockerFile struct {
	Server struct {
		Proxies []string `yaml:"trusted_proxies"`
	} `yaml:"server"`
	CORS struct {
		Origin string `yaml:"allowed_origin"`
	} `yaml:"cors"`
	Security struct {
		Allowed  []string            `yaml:"always_allowed_ips"`
		Excluded []string            `yaml:"excluded_paths"`
		ByHost   map[string][]string `yaml:"excluded_paths_by_host"`
		Max      *int                `yaml:"max_whitelist_entries"`
		Limit    struct {
			Window  *int `yaml:"window_seconds"`
			Success *int `yaml:"successful_requests"`
			Failure *int `yaml:"failed_requests"`
		} `yaml:"knock_rate_limit"`
	} `yaml:"security"`
	Whitelist struct {
		Path    string `yaml:"storage_path"`
		Cleanup int    `yaml:"cleanup_interval_seconds"`
	} `yaml:"whitelist"`
	Keys          []knockerKey `yaml:"api_keys"`
	Documentation struct {
		Enabled bool   `yaml:"enabled"`
		Path    string `yaml:"openapi_output_path"`
	} `yaml:"documentation"`
	Logging struct {
		Level string `yaml:"level"`
	} `yaml:"logging"`
	Firewalld struct {
		Enabled  bool   `yaml:"enabled"`
		Zone     string `yaml:"zone_name"`
		Priority int    `yaml:"zone_priority"`
		Target   string `yaml:"zone_target"`
		Action   string `yaml:"default_action"`
		Ports    []struct {
			Port     int    `yaml:"port"`
			Protocol string `yaml:"protocol"`
		} `yaml:"monitored_ports"`
		Sources []string `yaml:"monitored_ips"`
		Queue   int      `yaml:"mutation_queue_capacity"`
	} `yaml:"firewalld"`
}

type knockerKey struct {
	Name   string `yaml:"name"`
	Key    string `yaml:"key"`
	MaxTTL int64  `yaml:"max_ttl"`
	Remote bool   `yaml:"allow_remote_whitelist"`
}

// What Knocker takes where its file says nothing, and its greatest TTL in seconds.
const (
	knockerEntries = 10_000
	knockerMaxTTL  = 315_360_000
)

// Knocker makes a Caddyfile from the configuration of a Knocker server. whitelist is
// its whitelist.json, nil if there is none: what is in it at the time now becomes
// commands that make the grants anew.
func Knocker(b, whitelist []byte, o Options, now time.Time) (string, error) {
	p := o.problems(b)
	if err := p.err(); err != nil {
		return "", err
	}
	f := knockerParse(b, p)
	w := new(writer)
	w.header(&o, "knocker", "Knocker's clients stay as they are.",
		"safer: all lines of X-Forwarded-For count, excluded paths are compared as they were requested and",
		"never with dot segments or encoded separators, what is acknowledged is never evicted, and no",
		"address of this host or of nobody is let in.")
	service, ports := f.service(p, &o)
	w.open()
	if proxies := knockerPrefixes(p, "trusted_proxies", f.Server.Proxies); len(proxies) > 0 {
		w.open("servers")
		if slices.ContainsFunc(proxies, func(s string) bool { return strings.HasSuffix(s, "/0") }) {
			w.note("todo: this trusts everybody to say where he is; name your proxies")
		}
		w.line(nil, append([]string{"trusted_proxies", "static"}, proxies...)...)
		w.line(nil, "trusted_proxies_strict")
		w.close()
	}
	w.open("knock")
	f.clients(w, p, service)
	grants := knockerGrants(p, whitelist, now)
	if len(grants) > 0 {
		w.note("Owns what was let in before; see the end of this file.")
		w.open("client", "knocker-whitelist")
		w.line(nil, "services", service)
		w.line(nil, "methods", "http")
		w.close()
	}
	w.text("")
	w.open(append([]string{"service", service}, ports...)...)
	if f.Firewalld.Enabled {
		w.line([]string{
			"changed: nftables in the place of firewalld, for all who come, not only from monitored_ips",
			"todo: try it with `caddy knock firewall test`, so that you do not lock yourself out",
		}, "firewall", "nftables")
	}
	w.close()
	if f.Firewalld.Enabled {
		w.line(nil, "firewall", "nftables")
	}
	w.close()
	w.close()
	w.text("")
	w.note("todo: with a host name in the place of http://:8000, Caddy serves HTTPS. For sites in this Caddy,",
		"the matcher `knocked "+service+"` stands for forward_auth.")
	w.open("http://:8000")
	f.handler(w, p, service)
	w.close()
	if len(grants) > 0 {
		w.text("")
		w.note("What was let in when this was made. With Caddy running, these commands let it in again:")
		for _, g := range grants {
			w.note(fmt.Sprintf("  caddy knock grant knocker-whitelist %s %s --for %s", service, g.prefix, g.ttl))
		}
	}
	return w.finish(p)
}

var yamlLine = regexp.MustCompile(`line (\d+): (?:field (\S+) not found)?`)

// knockerParse reads the file. What the library says may quote keys, so only the
// places are taken from it.
func knockerParse(b []byte, p *problems) *knockerFile {
	f := new(knockerFile)
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	err := dec.Decode(f)
	if err == nil {
		return f
	}
	places := yamlLine.FindAllStringSubmatch(err.Error(), -1)
	if len(places) == 0 {
		p.add(0, "the file is not YAML")
	}
	for _, m := range places {
		line, _ := strconv.Atoi(m[1])
		switch field := m[2]; {
		case field != "":
			p.add(line, "Knocker knows no setting %q, and ignores it; take it out", field)
		case errors.As(err, new(*yaml.TypeError)):
			p.add(line, "the value is of a wrong type")
		default:
			p.add(line, "this is not YAML")
		}
	}
	return f
}

// service is the name and the ports of what is guarded.
func (f *knockerFile) service(p *problems, o *Options) (name string, ports []string) {
	if !f.Firewalld.Enabled || len(o.Ports) > 0 {
		ports = o.Ports
		for _, text := range ports {
			if _, err := knockcore.ParsePortRange(text); err != nil {
				p.add(0, "%w", err)
			}
		}
		if len(ports) == 0 {
			ports = []string{"tcp/443", "udp/443"}
		}
		return "web", ports
	}
	for _, m := range f.Firewalld.Ports {
		text := fmt.Sprintf("%s/%d", orElse(m.Protocol, "tcp"), m.Port)
		if _, err := knockcore.ParsePortRange(text); err != nil {
			p.add(0, "firewalld.monitored_ports: %w", err)
		}
		ports = append(ports, text)
	}
	if len(ports) == 0 {
		p.add(0, "firewalld is enabled without monitored_ports; add --port tcp/443, say")
	}
	return "web", ports
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (f *knockerFile) clients(w *writer, p *problems, service string) {
	if len(f.Keys) == 0 {
		p.add(0, "there are no api_keys")
	}
	seen := make(map[string]bool)
	for i, k := range f.Keys {
		id := strings.Map(func(r rune) rune {
			if r <= ' ' || r == 0x7f || strings.ContainsRune("{}\"`#\\\ufffd", r) {
				return '-'
			}
			return r
		}, strings.TrimSpace(k.Name))
		if id == "" || seen[id] {
			id += fmt.Sprintf("key-%d", i+1)
		}
		seen[id] = true
		if err := knockcore.ValidateAPIKey(k.Key); err != nil {
			p.add(0, "api_keys: %s: %w", id, err)
		} else if strings.Contains(k.Key, "{") {
			p.add(0, "api_keys: %s: the key has a brace, which means something in a Caddyfile; give the client another one", id)
		}
		if k.MaxTTL <= 0 {
			p.add(0, "api_keys: %s: max_ttl is no positive number of seconds", id)
		}
		w.open("client", id)
		w.line([]string{"todo: put the key into a file that only Caddy may read, and write {file./path}"}, "api_key", k.Key)
		w.line(nil, "services", service)
		w.line(nil, "max_ttl", fmt.Sprintf("%ds", min(k.MaxTTL, knockerMaxTTL)))
		if k.Remote {
			w.line(nil, "allow_remote", "/16", "/64")
		}
		w.close()
	}
}

func (f *knockerFile) handler(w *writer, p *problems, service string) {
	w.open("knock", service)
	if allowed := knockerPrefixes(p, "always_allowed_ips", f.Security.Allowed); len(allowed) > 0 {
		w.line(nil, append([]string{"always_allowed"}, allowed...)...)
	}
	if paths := knockerPaths(p, f.Security.Excluded); len(paths) > 0 {
		w.line(nil, append([]string{"excluded_paths"}, paths...)...)
	}
	for _, host := range slices.Sorted(maps.Keys(f.Security.ByHost)) {
		if paths := knockerPaths(p, f.Security.ByHost[host]); len(paths) > 0 {
			w.line(nil, append([]string{"excluded_paths", host}, paths...)...)
		}
	}
	if origin := f.CORS.Origin; origin != "" && origin != "*" {
		w.line(nil, "cors_origin", origin)
	}
	if n := f.Security.Max; n != nil && *n != knockerEntries {
		w.line([]string{"changed: one more is answered with 503, where Knocker forgets another one"}, "max_grants", strconv.Itoa(*n))
	}
	f.limits(w, p)
	if f.Documentation.Enabled {
		w.line([]string{"changed: it is served only, not written to a file, and loads nothing from elsewhere"}, "documentation")
	}
	w.close()
}

func (f *knockerFile) limits(w *writer, p *problems) {
	l := f.Security.Limit
	if l.Window == nil && l.Success == nil && l.Failure == nil {
		return
	}
	for _, n := range []*int{l.Window, l.Success, l.Failure} {
		if n != nil && *n < 0 || n == l.Window && n != nil && *n == 0 {
			p.add(0, "knock_rate_limit: %d is out of range", *n)
		}
	}
	w.note("safer: once failures are spent, every knock takes a second")
	w.open("rate_limit")
	if l.Window != nil {
		w.line(nil, "window", fmt.Sprintf("%ds", *l.Window))
	}
	count := func(option string, n *int) {
		switch {
		case n == nil:
		case *n == 0:
			w.line(nil, option, "off")
		default:
			w.line(nil, option, strconv.Itoa(*n))
		}
	}
	count("successful", l.Success)
	count("failed", l.Failure)
	w.close()
}

// knockerPrefixes clears host bits, as Knocker does.
func knockerPrefixes(p *problems, setting string, list []string) (clean []string) {
	for _, text := range list {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			clean = append(clean, addr.Unmap().String())
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if prefix = knockcore.NormalPrefix(prefix); err != nil || !prefix.IsValid() {
			p.add(0, "%s: %q is neither an address nor a network", setting, text)
			continue
		}
		clean = append(clean, prefix.String())
	}
	return clean
}

// knockerPaths adds the slash that Knocker adds. The handler judges the rest.
func knockerPaths(p *problems, list []string) (clean []string) {
	for _, path := range list {
		if path == "" || strings.Contains(path, "://") || strings.ContainsAny(path, "?#%\\ ") || strings.Contains(path, "//") || strings.Contains("/"+path+"/", "/../") || strings.Contains("/"+path+"/", "/./") {
			p.add(0, "excluded path %q: write it as it appears in URLs, such as /public", path)
			continue
		}
		clean = append(clean, "/"+strings.TrimPrefix(path, "/"))
	}
	return clean
}
