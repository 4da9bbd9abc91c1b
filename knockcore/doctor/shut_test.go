// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestShut(t *testing.T) {
	const (
		layer4 = `"layer4":{"servers":{"a":{"routes":[{"handle":[{"handler":"knock","service":"ssh"}]}]}}}`
		web    = `"http":{"servers":{"a":{"routes":[{"handle":[{"handler":"subroute","routes":[{"handle":[{"handler":"knock"%s}]}]}]}]}}}`
		inside = `"http":{"servers":{"a":{"listener_wrappers":[{"wrapper":"layer4","routes":[{"handle":[{"handler":"knock"}]}]}]}}}`
	)
	services := func(text string) string { return strings.Replace(web, "%s", text, 1) }
	for name, row := range map[string]struct {
		apps  string
		found bool
	}{
		"nothing":             {`"knock":{}`, true},
		"a frame":             {layer4, true},
		"a frame before HTTP": {inside, true},
		"a matcher":           {`"http":{"servers":{"a":{"routes":[{"match":[{"knocked":{"services":["ssh"]}}]}]}}}`, true},
		"a source":            {`"knock":{"sources":[{"source":"udp"}]}`, false},
		"SYNs":                {`"knock":{"sources":[{"source":"nflog","methods":["port-sequence","tcp-syn"]}]}`, false},
		"sequences only":      {`"knock":{"sources":[{"source":"nflog","methods":["port-sequence"]}]}`, true},
		"no other method":     {`"knock":{"methods":["tcp-auth-envelope-v2","port-sequence"],"sources":[{"source":"nflog"}]}`, true},
		"a door":              {`"knock":{"sources":[{"source":"nflog","methods":["port-sequence"]}],"doors":[{"services":["ssh"]}]}`, false},
		"a door that closes":  {`"knock":{"sources":[{"source":"nflog","methods":["port-sequence"]}],"doors":[{"services":["ssh"],"close":true}]}`, true},
		"HTTP":                {services(""), false},
		"HTTP for it":         {services(`,"services":["web","ssh"]`), false},
		"HTTP for another":    {services(`,"services":["web"]`), true},
		"others of the fleet": {`"knock":{"store":{"store":"redis"}}`, false},
		"the store of a file": {`"knock":{"store":{"store":"file"}}`, true},
	} {
		plan := &Plan{
			Services: []*knockcore.Service{
				{Name: "ssh", Firewall: "nftables", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 2222, High: 2222}}},
				{Name: "open"},
				{Name: "tried", Firewall: "none"},
			},
			Firewalls: map[string]Firewall{"nftables": {Module: "nftables"}, "none": {Module: "none"}},
			JSON:      []byte(`{"apps":{` + row.apps + `}}`),
			Guarded:   GuardedBy([]byte(`{"apps":{` + row.apps + `}}`)),
		}
		found := 0
		for _, f := range checkConfig(plan) {
			if f.ID == "shut" {
				found++
				if f.Subject != "ssh" || f.Level != Problem || !strings.Contains(f.Advice, "source udp :62201") ||
					row.apps == layer4 && !strings.Contains(f.Advice, "a frame guards it") {
					t.Errorf("%s: %+v", name, f)
				}
			}
		}
		if (found == 1) != row.found || found > 1 {
			t.Errorf("%s: %d findings", name, found)
		}
	}
}
