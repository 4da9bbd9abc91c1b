// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"net/http"
	"slices"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func (*Admin) health(app *App, _ *http.Request) (any, error) {
	problems := app.problems()
	answer := struct {
		Healthy  bool     `json:"healthy"`
		Problems []string `json:"problems,omitempty"`
	}{len(problems) == 0, problems}
	if !answer.Healthy {
		return answer, httpStatus{http.StatusServiceUnavailable, "not healthy"}
	}
	return answer, nil
}

func (*Admin) status(app *App, _ *http.Request) (any, error) {
	gate := app.Running()
	type serviceJSON struct {
		Name     string   `json:"name"`
		Ports    []string `json:"ports"`
		Firewall string   `json:"firewall,omitempty"`
		Grants   int      `json:"grants"`
	}
	live := make(map[string]int)
	gate.State().Each(func(g *knockcore.Grant) { live[g.Service]++ })
	answer := struct {
		Healthy  bool          `json:"healthy"`
		Problems []string      `json:"problems,omitempty"`
		Clients  int           `json:"clients"`
		Grants   int           `json:"grants"`
		Nonces   int           `json:"replay_nonces"`
		Pending  int           `json:"streams_pending"`
		Window   string        `json:"time_window"`
		Store    string        `json:"store"`
		Fleet    *fleetJSON    `json:"fleet,omitempty"`
		Services []serviceJSON `json:"services"`
		// Readers is how many follow the events.
		Readers int `json:"events_readers"`
		// Knocks counts knocks of this process by method and what became of them.
		Knocks []knockCount `json:"knocks"`
	}{
		Problems: app.problems(), Clients: gate.Keyring().Len(), Grants: gate.State().Len(),
		Fleet: fleetOf(gate.State().Store), Pending: app.Pending().Len(), Window: gate.Window().String(), Services: []serviceJSON{}, Knocks: app.metrics.knockCounts(), Readers: int(streamReaders.Load()),
	}
	answer.Healthy = len(answer.Problems) == 0
	if live := app.live.Load(); live != nil {
		answer.Store = live.key
	}
	if counter, ok := gate.State().Store.(interface{ Nonces() int }); ok {
		answer.Nonces = counter.Nonces()
	}
	for _, s := range gate.Services() {
		shown := serviceJSON{Name: s.Name, Firewall: s.Firewall, Grants: live[s.Name]}
		for _, p := range s.Ports {
			shown.Ports = append(shown.Ports, p.String())
		}
		answer.Services = append(answer.Services, shown)
	}
	return answer, nil
}

// problems lists what is not well, for people.
func (a *App) problems() []string {
	var problems []string
	if checker, ok := a.gate.State().Store.(interface{ Health() error }); ok {
		if err := checker.Health(); err != nil {
			problems = append(problems, "store: "+err.Error())
		}
	}
	if careful, ok := a.gate.State().Store.(interface{ Refuses() time.Time }); ok {
		if until := careful.Refuses(); !until.IsZero() {
			problems = append(problems, "store: spent nonces may have been lost, so frames made before "+until.Format(time.RFC3339)+" are refused")
		}
	}
	if a.file != nil {
		if err := a.file.health(); err != nil {
			problems = append(problems, "clients_file: "+err.Error())
		}
	}
	if err := a.devicesHealth(); err != nil {
		problems = append(problems, "devices: "+err.Error())
	}
	return slices.Concat(problems, a.sourceProblems(), a.standing.list())
}
