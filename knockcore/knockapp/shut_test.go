// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// TestOpens: what shows packets to doors only opens what doors name.
func TestOpens(t *testing.T) {
	takes := func(methods ...knockcore.Method) *SourceConfig {
		return &SourceConfig{Dispatch: source.DispatchConfig{Methods: knockcore.NewMethodSet(methods...)}}
	}
	sequences := takes(knockcore.MethodPortSequence)
	for name, c := range map[string]struct {
		app  *App
		want bool
	}{
		"nothing":                {&App{}, false},
		"a datagram":             {&App{sources: []*SourceConfig{takes(knockcore.MethodPyknock)}}, true},
		"sequences without door": {&App{sources: []*SourceConfig{sequences}}, false},
		"a door":                 {&App{sources: []*SourceConfig{sequences}, Doors: []*Door{{Services: []string{"s"}}}}, true},
		"another's door":         {&App{sources: []*SourceConfig{sequences}, Doors: []*Door{{Services: []string{"other"}}}}, false},
		"a door that closes":     {&App{sources: []*SourceConfig{sequences}, Doors: []*Door{{Services: []string{"s"}, Close: true}}}, false},
		"SYNs besides":           {&App{sources: []*SourceConfig{takes(knockcore.MethodPortSequence, knockcore.MethodTCPSYN)}}, true},
		"HTTP":                   {&App{guards: guards{"s": TakesKnocks}}, true},
		"a frame":                {&App{guards: guards{"s": GuardFrame}}, false},
	} {
		if got := c.app.opens("s"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
