// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"net"
	"strconv"

	"github.com/spf13/cobra"
)

// completeTargets offers profiles as targets and for --profile.
func (a *app) completeTargets(cmd *cobra.Command) {
	cmd.ValidArgsFunction = completeTarget
	if cmd.Flags().Lookup("profile") != nil {
		_ = cmd.RegisterFlagCompletionFunc("profile", completeProfiles) // fails for unknown flags only
	}
}

func completeProfiles(_ *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	_, names, _ := profileNames() // without profiles there is nothing to offer
	return names, cobra.ShellCompDirectiveNoFileComp
}

func completeTarget(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var targets []cobra.Completion
	profiles, names, _ := profileNames()
	for _, name := range names {
		p, err := profiles.Load(name)
		if len(args) > 0 || err != nil || p.Server == "" {
			continue
		}
		address := p.Server
		if p.Port != 0 {
			address = net.JoinHostPort(p.Server, strconv.Itoa(int(p.Port)))
		}
		targets = append(targets, p.Client+"@"+address)
	}
	return targets, cobra.ShellCompDirectiveNoFileComp
}
