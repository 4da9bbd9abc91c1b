// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/doctor"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

func doctorCommand() *cobra.Command {
	var file configFile
	var asJSON bool
	cmd := file.flags(&cobra.Command{
		Use:   "doctor",
		Short: "Looks for holes and lock-outs, and proves from outside that closed is closed",
		Long: `
Looks at this host, at the Caddy that runs on it and at the configuration file for
what makes a gate less closed, or a client more locked out, than it seems. Then it
connects to every port of the services as a stranger would, from a network
namespace that it makes for the moment, and tells what is proved closed or open.

Each finding says what to do. The exit code is 1 if there is a problem. Run it as
root: without, it says what it could not look at.`,
		Example: `  caddy knock doctor --config /etc/caddy/Caddyfile`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := file.firewalls()
			if err != nil {
				return err
			}
			plan, err := set.doctorPlan()
			if err != nil {
				return err
			}
			report := doctor.Run(cmd.Context(), plan)
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			} else {
				err = printReport(cmd.OutOrStdout(), report)
			}
			if err == nil && !report.OK {
				return exit(cmd, 1, errors.New("there are problems"))
			}
			return err
		},
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print one line of JSON")
	return cmd
}

// doctorPlan is what the doctor needs to know of the configuration.
func (set *firewallSet) doctorPlan() (*doctor.Plan, error) {
	var cfg struct {
		Admin struct {
			Disabled bool   `json:"disabled"`
			Listen   string `json:"listen"`
		} `json:"admin"`
		Apps struct {
			Knock struct {
				Firewalls map[string]struct {
					Table string   `json:"table"`
					Hook  string   `json:"hook"`
					Sets  []string `json:"sets"`
				} `json:"firewalls"`
				Sources []struct {
					Source string `json:"source"`
				} `json:"sources"`
			} `json:"knock"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(set.json, &cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", set.path, err)
	}
	plan := &doctor.Plan{Services: set.services, Firewalls: make(map[string]doctor.Firewall), JSON: set.json, Guarded: doctor.GuardedBy(set.json)}
	if !cfg.Admin.Disabled {
		plan.Admin = caddy.DefaultAdminListen
		if cfg.Admin.Listen != "" {
			plan.Admin = cfg.Admin.Listen
		}
	}
	for name, p := range set.plans {
		fw := doctor.Firewall{Module: name, Stands: p.Stands}
		if raw := cfg.Apps.Knock.Firewalls[name]; name == "nftables" && len(raw.Sets) == 0 {
			fw.Table, fw.Published = nft.DefaultTable, raw.Hook != string(nft.HookInput)
			if raw.Table != "" {
				fw.Table = raw.Table
			}
		}
		plan.Firewalls[name] = fw
	}
	for _, s := range cfg.Apps.Knock.Sources {
		plan.Sources = append(plan.Sources, s.Source)
	}
	return plan, nil
}

// printReport writes a report for people.
func printReport(w io.Writer, r *doctor.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		subject := ""
		if f.Subject != "" {
			subject = " " + f.Subject
		}
		fmt.Fprintf(&b, "%-8s %s%s: %s\n", f.Level, f.ID, subject, f.Text)
		if f.Advice != "" {
			fmt.Fprintf(&b, "         %s\n", f.Advice)
		}
	}
	if len(r.Proofs) > 0 {
		b.WriteString("\n")
	}
	for _, p := range r.Proofs {
		verdict, detail := "proved "+string(p.Verdict), p.Detail
		switch {
		case p.Guarded:
			verdict, detail = "open, as meant", detail+"; Caddy asks for a frame or a grant there, and strangers meet the cover"
		case p.Verdict == doctor.Unproved || p.Verdict == doctor.Silent:
			verdict = string(p.Verdict)
		}
		fmt.Fprintf(&b, "%-14s %s %s over %s (%s)\n", verdict, p.Service, p.Port, p.Family, detail)
	}
	if r.OK {
		b.WriteString("\nNo problem was found.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
