// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// knockConfig is what the doctor reads of the knock app.
type knockConfig struct {
	InsecureFileMode bool     `json:"insecure_file_mode"`
	ClientsFile      string   `json:"clients_file"`
	Methods          []string `json:"methods"`
	Sources          []struct {
		Methods []string `json:"methods"`
	} `json:"sources"`
	Doors []struct {
		Services []string `json:"services"`
		Close    bool     `json:"close"`
	} `json:"doors"`
	Store struct {
		Store string `json:"store"`
	} `json:"store"`
}

// checkShut finds services whose firewall no knock could ever open.
func (k *knockConfig) checkShut(p *Plan) (found []Finding) {
	if !slices.Contains([]string{"", "file", "memory"}, k.Store.Store) {
		return nil // knocks may come in at other nodes
	}
	knocked := knockedByHTTP(p.JSON)
	for _, s := range p.Services {
		if !p.gated(s) || k.opens(s.Name) || knocked(s.Name) {
			continue
		}
		f := Finding{
			ID: "shut", Level: Problem, Subject: s.Name,
			Text:   fmt.Sprintf("no knock can open firewall %s for it: no source, door or HTTP handler `knock` takes knocks for it", s.Firewall),
			Advice: "add for example `source udp :62201`",
		}
		if p.Guarded != nil && p.Guarded(s.Name) {
			f.Advice += ", or leave `firewall " + s.Firewall + "` out if a frame guards it, which can't arrive at a closed port"
		}
		found = append(found, f)
	}
	return found
}

// opens reports whether a source or a door takes knocks for the service.
func (k *knockConfig) opens(service string) bool {
	for _, s := range k.Sources {
		methods := s.Methods
		if len(methods) == 0 {
			methods = k.Methods
		}
		if len(methods) == 0 || slices.ContainsFunc(methods, isPacket) {
			return true
		}
	}
	for _, d := range k.Doors {
		if !d.Close && slices.Contains(d.Services, service) {
			return true
		}
	}
	return false
}

// isPacket reports whether the knocks of a method are packets that name what they
// are for, which those of doors do not.
func isPacket(method string) bool {
	m, err := knockcore.ParseMethod(method)
	return err == nil && !m.IsFrame() && m != knockcore.MethodHTTP && m != knockcore.MethodPortSequence
}

// knockedByHTTP finds out for which services HTTP handlers take knocks.
func knockedByHTTP(config []byte) func(service string) bool {
	var root struct {
		Apps map[string]any `json:"apps"`
	}
	_ = json.Unmarshal(config, &root)
	var names []string
	all := false
	var look func(any)
	look = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				look(item)
			}
		case map[string]any:
			if v["handler"] == "knock" {
				named := texts(v["services"])
				names, all = append(names, named...), all || len(named) == 0
			}
			for key, value := range v {
				if key != "listener_wrappers" { // layer4's handlers are others
					look(value)
				}
			}
		}
	}
	for app, value := range root.Apps {
		if app != "knock" && app != "layer4" {
			look(value)
		}
	}
	return func(service string) bool { return all || slices.Contains(names, service) }
}
