// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestPorts(t *testing.T) {
	ssh := &knockcore.Service{Name: "ssh", Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 2222, High: 2230}}}
	for _, row := range []struct {
		listen, handler string
		found           bool
	}{
		{`":2222"`, `"service":"ssh"`, false},
		{`"tcp/[::1]:2220-2222"`, `"service":"ssh"`, false},
		{`":22",":2225"`, `"service":"ssh"`, false},
		{`":22"`, `"service":"ssh"`, true},
		{`":22"`, `"service":"ssh","port":2222`, false},
		{`":22"`, `"service":"other"`, false},
		{`":{env.PORT}"`, `"service":"ssh"`, false},
		{`"unix//run/x.sock"`, `"service":"ssh"`, false},
	} {
		config := fmt.Sprintf(`{"apps":{"layer4":{"servers":{"a":{"listen":[%s],"routes":[{"handle":[{"handler":"knock",%s}]}]}}}}}`, row.listen, row.handler)
		found := checkConfig(&Plan{Services: []*knockcore.Service{ssh}, JSON: []byte(config)})
		if (len(found) == 1 && found[0].ID == "port") != row.found {
			t.Errorf("%s %s: %+v", row.listen, row.handler, found)
		}
	}
}
