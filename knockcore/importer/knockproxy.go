// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// knockProxyFile is the configuration of knock-proxy (libknock.md section 17), as
// far as it means something here; the rest is read and judged by its names.
type knockProxyFile struct {
	Mode   string `yaml:"mode"`
	Server struct {
		Listen   string `yaml:"tcp_listen"`
		Upstream string `yaml:"upstream"`
	} `yaml:"server"`
	Client struct {
		Listen     string `yaml:"listen"`
		Server     string `yaml:"server_addr"`
		Protected  uint16 `yaml:"protected_tcp_port"`
		UDP        string `yaml:"udp_server_addr"`
		ID         string `yaml:"client_id"`
		Secret     string `yaml:"secret"`
		SecretFile string `yaml:"secret_file"`
	} `yaml:"client"`
	Auth struct {
		Clients []struct {
			ID             string `yaml:"client_id"`
			Secret         string `yaml:"secret"`
			SecretFile     string `yaml:"secret_file"`
			MaxConnections int    `yaml:"max_connections"`
		} `yaml:"clients"`
		Window int `yaml:"time_window_seconds"`
		Cache  int `yaml:"nonce_cache_seconds"`
	} `yaml:"auth"`
	Access map[string]any `yaml:"access"`
	Knock  struct {
		Method         string         `yaml:"method"`
		Frame          string         `yaml:"frame"`
		MaxFrame       int            `yaml:"max_frame_size"`
		Window         any            `yaml:"time_window"`
		WindowSeconds  int            `yaml:"time_window_seconds"`
		Binding        *bool          `yaml:"require_session_binding"`
		Listen         string         `yaml:"udp_listen"`
		Port           uint16         `yaml:"udp_port"`
		KnockPort      uint16         `yaml:"udp_knock_port"`
		Timeout        int            `yaml:"timeout_seconds"`
		Retry          *int           `yaml:"retry"`
		MaxParts       int            `yaml:"sequence_max_parts"`
		Sequence       map[string]any `yaml:"sequence"`
		SequenceWindow any            `yaml:"sequence_window"`
		Replay         map[string]any `yaml:"replay"`
	} `yaml:"knock"`
	Firewall struct {
		Backend     string         `yaml:"backend"`
		Port        uint16         `yaml:"port"`
		Default     string         `yaml:"default_action"`
		Allow       int            `yaml:"allow_seconds"`
		RemoveAfter *bool          `yaml:"remove_after_auth"`
		IPv6        *bool          `yaml:"enable_ipv6"`
		NFTables    map[string]any `yaml:"nftables"`
		IPTables    map[string]any `yaml:"iptables"`
		IPSet       map[string]any `yaml:"ipset"`
		Script      map[string]any `yaml:"script"`
	} `yaml:"firewall"`
	Limits    map[string]any `yaml:"limits"`
	Timeouts  map[string]int `yaml:"timeouts"`
	Transport map[string]any `yaml:"transport"`
	Metrics   map[string]any `yaml:"metrics"`
}

func readKnockProxy(b []byte, p *problems) (*knockProxyFile, bool) {
	f := new(knockProxyFile)
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(f); err != nil {
		p.add(0, "%w", err)
		return f, false
	}
	if err := dec.Decode(new(any)); err != io.EOF {
		p.add(0, "there is more than one YAML document in it")
		return f, false
	}
	return f, true
}

func (f *knockProxyFile) method(p *problems) knockcore.Method {
	switch f.Knock.Method {
	case "", "udp":
		return knockcore.MethodUDP
	case "udp-sequence":
		return knockcore.MethodUDPSeq
	case "udp-passive-sequence":
		return knockcore.MethodUDPPassiveSeq
	}
	m, err := knockcore.ParseMethod(f.Knock.Method)
	if err != nil {
		p.add(0, "knock.method: %w", err)
	}
	return m
}

func hostPort(p *problems, name, text string) (host string, port uint16) {
	host, portText, err := net.SplitHostPort(text)
	n, numErr := strconv.ParseUint(portText, 10, 16)
	if err != nil || numErr != nil || n == 0 {
		p.add(0, "%s: %q is not HOST:PORT", name, text)
	}
	return host, uint16(n)
}

// IsKnockProxyClient reports whether a configuration of knock-proxy is a client's.
func IsKnockProxyClient(b []byte) bool {
	f, ok := readKnockProxy(b, new(problems))
	return ok && (f.Mode == "client" || f.Mode == "" && f.Client.Server != "")
}

// KnockProxyClient makes a profile from knock-proxy's client configuration.
func KnockProxyClient(b []byte, o Options) ([]Profile, error) {
	p := o.problems(b)
	f, ok := readKnockProxy(b, p)
	if !ok {
		return nil, p.err()
	}
	profile := Profile{Name: f.Client.ID, Profile: &knockclient.Profile{
		Client: f.Client.ID, SecretFile: f.Client.SecretFile, ProtectedPort: f.Client.Protected,
		Timeout: time.Duration(f.Timeouts["auth_seconds"]) * time.Second, ConnectTimeout: time.Duration(f.Timeouts["connect_seconds"]) * time.Second,
	}}
	profile.Server, profile.Port = hostPort(p, "client.server_addr", f.Client.Server)
	var err error
	if profile.Secret, err = knockcore.ParseSecret(f.Client.Secret); err != nil {
		p.add(0, "client.secret: %w", err)
	}
	switch {
	case knockcore.ValidateID(f.Client.ID) != nil:
		p.add(0, "client.client_id: %w", knockcore.ValidateID(f.Client.ID))
	case f.Client.Secret == "" && f.Client.SecretFile == "", f.Client.Secret != "" && f.Client.SecretFile != "":
		p.add(0, "client: expect one of secret and secret_file")
	case f.Client.Secret != "":
		if err := profile.Secret.Strong(); err != nil {
			p.add(0, "client.secret: %w", err)
		}
	}
	method := f.method(p)
	if method != knockcore.MethodNone && !knockclient.IsDatagram(method) {
		p.add(0, "knock.method %v can't be kept in a profile", method)
	}
	k := &knockclient.ProfileKnock{Method: method, Copies: 1}
	if f.Client.UDP != "" {
		k.Host, k.Port = hostPort(p, "client.udp_server_addr", f.Client.UDP)
	} else if k.Port = f.Knock.KnockPort; k.Port == 0 {
		if k.Port = f.Knock.Port; k.Port == 0 {
			k.Port = profile.Port
		}
	}
	if f.Knock.Retry != nil {
		k.Copies = max(1, min(*f.Knock.Retry, knockclient.MaxCopies))
	}
	if n, ok := f.Knock.Sequence["length"].(int); ok {
		k.Parts = n
	}
	if f.Knock.Binding != nil && !*f.Knock.Binding {
		k.NoSession = true
	}
	profile.Knock = k
	if f.Client.Listen != "" {
		profile.Notes = append(profile.Notes, "todo: client.listen "+f.Client.Listen+" is what `caddy-knock forward` is told")
	}
	return []Profile{profile}, p.err()
}

// KnockProxy makes a Caddyfile from knock-proxy's server configuration.
func KnockProxy(b []byte, o Options) (string, error) {
	p := o.problems(b)
	f, ok := readKnockProxy(b, p)
	if !ok {
		return "", p.err()
	}
	_, port := hostPort(p, "server.tcp_listen", f.Server.Listen)
	hostPort(p, "server.upstream", f.Server.Upstream)
	method := f.method(p)
	if len(f.Auth.Clients) == 0 {
		p.add(0, "auth.clients is empty")
	}
	w := new(writer)
	w.header(&o, "knock-proxy", "safer: a relay without copies in user space, a replay guard that a restart does not forget, services",
		"that stay closed after a crash. Limits are ours: see `max_pending` and knock_relay.")
	w.open()
	w.open("knock")
	if n := max(f.Auth.Window, f.Knock.WindowSeconds); n > 0 && n != 30 {
		w.line(nil, "time_window", duration(time.Duration(n)*time.Second))
	}
	for _, c := range f.Auth.Clients {
		if c.MaxConnections != 0 {
			p.add(0, "client %s: max_connections must be 0", c.ID)
		}
		if err := knockcore.ValidateID(c.ID); err != nil {
			p.add(0, "client %q: %w", c.ID, err)
		}
		w.open("client", c.ID)
		switch {
		case (c.Secret == "") == (c.SecretFile == ""):
			p.add(0, "client %s: expect one of secret and secret_file", c.ID)
		case c.Secret != "":
			w.line([]string{"todo: put the secret into a file that only Caddy may read and write {file./path}"}, "secret", c.Secret)
		default:
			w.line(nil, "secret", "{file."+c.SecretFile+"}")
		}
		w.line(nil, "services", "relay")
		w.close()
	}
	w.open("service", "relay", fmt.Sprintf("tcp/%d", port))
	allow := f.Firewall.Allow
	if allow <= 0 {
		allow = 15
	}
	w.line(nil, "open_for", duration(time.Duration(allow)*time.Second))
	if f.Knock.Binding == nil || *f.Knock.Binding {
		if method.CarriesSession() {
			w.line(nil, "require_session")
			if f.Firewall.RemoveAfter == nil || *f.Firewall.RemoveAfter {
				w.line(nil, "close_after_auth")
			}
		} else {
			w.note("changed: require_session_binding: " + method.String() + " carries no session, so that it is not asked for")
		}
	}
	switch f.Firewall.Backend {
	case "", "auto", "nftables", "iptables", "ipset-iptables":
		w.line([]string{"safer: a table of its own, whose windows the kernel ends; take the old rules away"}, "firewall", "nftables")
	case "noop":
		w.note("changed: backend noop: there is no firewall here either, so that strangers reach the port and meet silence")
	case "script":
		p.add(0, "firewall.backend script: write `firewall exec` with open, close and setup of yours, whose placeholders are other ones")
	default:
		p.add(0, "firewall.backend %q is not known", f.Firewall.Backend)
	}
	w.close()
	knockPort := f.Knock.KnockPort
	if knockPort == 0 {
		knockPort = port
	}
	listen := f.Knock.Listen
	if listen == "" {
		listen = fmt.Sprintf(":%d", knockPort)
	}
	if method == knockcore.MethodUDP || method == knockcore.MethodUDPSeq {
		w.open("source", "udp", listen)
	} else {
		w.open("source", "nflog")
		if method.CarriesSession() {
			w.line(nil, "ports", fmt.Sprintf("udp/%d", knockPort))
		}
	}
	w.line(nil, "methods", method.String())
	w.close()
	switch f.Firewall.Backend {
	case "", "auto", "nftables", "iptables", "ipset-iptables":
		w.line(nil, "firewall", "nftables")
	}
	w.close()
	w.open("layer4")
	w.open(f.Server.Listen)
	w.open("route")
	w.open("knock")
	w.line(nil, "service", "relay")
	if n := f.Timeouts["auth_seconds"]; n > 0 {
		w.line(nil, "wait", duration(time.Duration(n)*time.Second))
	}
	w.open("admit")
	w.line(nil, "knock_relay", f.Server.Upstream)
	for range 6 { // admit, knock, route, the listener, layer4 and the options
		w.close()
	}
	return w.finish(p)
}
