// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// layer4Server is what the doctor reads of a server of caddy-l4.
type layer4Server struct {
	Listen []string        `json:"listen"`
	Routes json.RawMessage `json:"routes"`
}

// checkPorts finds servers that ask for the frames of a service on none of its
// ports, so that its firewall closes another one.
func (s *layer4Server) checkPorts(p *Plan, name string) (found []Finding) {
	var ports []knockcore.PortRange
	for _, listen := range s.Listen {
		text := listen[strings.LastIndexByte(listen, ':')+1:]
		r, err := knockcore.ParsePortRange(text)
		if err != nil {
			return nil // a placeholder, a socket, a name
		}
		ports = append(ports, r)
	}
	var routes any
	_ = json.Unmarshal(s.Routes, &routes)
	walk(routes, func(module map[string]any) {
		kind, _ := module["handler"].(string)
		if _, elsewhere := module["port"]; kind != "knock" || elsewhere {
			return
		}
		for _, named := range texts(module["service"]) {
			i := slices.IndexFunc(p.Services, func(service *knockcore.Service) bool { return service.Name == named })
			if i < 0 || slices.ContainsFunc(ports, func(r knockcore.PortRange) bool { return meets(p.Services[i], r) }) {
				continue
			}
			found = append(found, Finding{
				ID: "port", Level: Warning, Subject: named,
				Text:   fmt.Sprintf("layer4 server %s asks for its frames on %s, which is none of its ports: what a firewall closes is not what Caddy listens on", name, strings.Join(s.Listen, ", ")),
				Advice: "give service " + named + " the port that clients dial; if that is another one, because something in front translates it, add `port` to the knock block",
			})
		}
	})
	return found
}

func meets(s *knockcore.Service, r knockcore.PortRange) bool {
	return slices.ContainsFunc(s.Ports, func(p knockcore.PortRange) bool {
		return p.Protocol == r.Protocol && p.Low <= r.High && r.Low <= p.High
	})
}
