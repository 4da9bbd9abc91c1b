// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "knock",
		Short: "Knocks, and manages who may",
		Long: `
The client of caddy-knock, the same as the stand-alone program caddy-knock, and
what belongs to the server: "caddy knock demo" shows in a few seconds what a
stranger, an eavesdropper and a client see; "caddy knock status" and its like ask
a running Caddy.
`,
		CobraFunc: func(cmd *cobra.Command) {
			knockcli.AddTo(cmd, knockcli.Options{
				Name:     "caddy knock",
				Commands: append([]*cobra.Command{demoCommand(), firewallCommand(), doctorCommand(), importCommand()}, adminCommands()...),
				Exit:     exit,
			})
		},
	})
}

// exit hands an exit code to Caddy's main function. The error has been printed.
func exit(cmd *cobra.Command, code int, err error) error {
	cmd.Root().SilenceErrors = true
	if code <= 1 {
		return err
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}
