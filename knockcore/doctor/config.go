// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// caddyConfig is what the doctor reads of Caddy's configuration.
type caddyConfig struct {
	Apps struct {
		HTTP struct {
			HTTPPort int                    `json:"http_port"`
			Servers  map[string]*httpServer `json:"servers"`
		} `json:"http"`
		Layer4 struct {
			Servers map[string]*layer4Server `json:"servers"`
		} `json:"layer4"`
		Knock knockConfig `json:"knock"`
	} `json:"apps"`
}

type httpServer struct {
	Listen           []string        `json:"listen"`
	Protocols        []string        `json:"protocols"`
	TrustedProxies   json.RawMessage `json:"trusted_proxies"`
	Strict           int             `json:"trusted_proxies_strict"`
	ListenerWrappers []struct {
		Wrapper string `json:"wrapper"`
	} `json:"listener_wrappers"`
	PacketConnWrappers []struct {
		Wrapper string `json:"wrapper"`
	} `json:"packet_conn_wrappers"`
	Routes json.RawMessage `json:"routes"`
	TLS    json.RawMessage `json:"tls_connection_policies"`
	Auto   *struct {
		Disabled bool `json:"disable"`
	} `json:"automatic_https"`
}

// checkConfig makes the checks that need no host.
func checkConfig(p *Plan) (found []Finding) {
	var cfg caddyConfig
	if err := json.Unmarshal(p.JSON, &cfg); err != nil {
		return []Finding{{ID: "config", Level: Problem, Text: fmt.Sprintf("the configuration can't be read: %v", err)}}
	}
	for name, server := range cfg.Apps.HTTP.Servers {
		found = append(found, server.checkHTTP3(p, name, cfg.Apps.HTTP.HTTPPort)...)
		if len(server.TrustedProxies) > 0 && server.Strict == 0 && usesKnock(server.Routes) {
			found = append(found, Finding{
				ID: "trusted-proxies", Level: Problem, Subject: name,
				Text:   "trusted_proxies is not strict: X-Forwarded-For is read from the left, where clients write what they like",
				Advice: "add trusted_proxies_strict to the servers options",
			})
		}
	}
	for name, server := range cfg.Apps.Layer4.Servers {
		found = append(found, server.checkPorts(p, name)...)
	}
	found = append(found, cfg.Apps.Knock.checkShut(p)...)
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.ID+a.Subject, b.ID+b.Subject) })
	if !cfg.Apps.Knock.InsecureFileMode {
		found = append(found, checkKeyFiles(p.JSON, cfg.Apps.Knock.ClientsFile)...)
	}
	return found
}

// usesKnock reports whether the routes ask who knocked.
func usesKnock(routes json.RawMessage) bool {
	return strings.Contains(string(routes), `"handler":"knock"`) || strings.Contains(string(routes), `"knocked":`)
}

// checkHTTP3 finds servers that are reached by UDP past a gate for TCP.
func (s *httpServer) checkHTTP3(p *Plan, name string, httpPort int) (found []Finding) {
	if len(s.Protocols) > 0 && !slices.Contains(s.Protocols, "h3") {
		return nil
	}
	plain := len(s.TLS) == 0 && s.Auto != nil && s.Auto.Disabled
	for _, pw := range s.PacketConnWrappers {
		if pw.Wrapper == "knocked" {
			return nil
		}
	}
	for _, listen := range s.Listen {
		_, text, err := net.SplitHostPort(listen)
		port, atoiErr := strconv.ParseUint(text, 10, 16)
		if err != nil || atoiErr != nil || plain || int(port) == max(httpPort, 80) {
			continue
		}
		service := p.serviceAt(knockcore.TCP, uint16(port))
		if service == nil || !p.gated(service) || p.serviceAt(knockcore.UDP, uint16(port)) != nil {
			continue
		}
		found = append(found, Finding{
			ID: "http3", Level: Problem, Subject: service.Name,
			Text:   fmt.Sprintf("server %s serves HTTP/3 on udp/%d, which walks past the gate of tcp/%d", name, port, port),
			Advice: fmt.Sprintf("add udp/%d to service %s, or `protocols h1 h2` to the servers options", port, service.Name),
		})
	}
	return found
}

var filePlaceholder = regexp.MustCompile(`\{file\.([^{}"]+)\}`)

// checkKeyFiles finds key files that others may read.
func checkKeyFiles(config []byte, clients string) (found []Finding) {
	var paths []string
	for _, m := range filePlaceholder.FindAllSubmatch(config, -1) {
		var path string
		if json.Unmarshal([]byte(`"`+string(m[1])+`"`), &path) == nil {
			paths = append(paths, path)
		}
	}
	if clients != "" {
		paths = append(paths, clients)
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			found = append(found, Finding{
				ID: "key-file", Level: Problem, Subject: path, Text: fmt.Sprintf("can't be read: %v", err),
				Advice: "put it there, or correct the path in the configuration",
			})
		case info.Mode().Perm()&0o007 != 0 && reachable(path):
			found = append(found, Finding{
				ID: "key-file", Level: Problem, Subject: path,
				Text:   fmt.Sprintf("every user of this host may read or change it (mode %04o)", info.Mode().Perm()),
				Advice: "chmod 600 " + path + " and make Caddy's user its owner",
			})
		}
	}
	return found
}

// reachable reports whether everybody may enter the directories above a file.
func reachable(path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return true
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&0o001 == 0 || os.IsPermission(err) && err != fs.ErrInvalid {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
