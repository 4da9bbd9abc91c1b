// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// rawJSON is JSON that is there already.
type rawJSON = json.RawMessage

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := a.command(cobra.Command{
		Use: "version [flags]", Short: "Print the version",
		Long: "Print the version, and with --json what it was built with.",
	}, cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		version := a.version()
		if !asJSON {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "caddy-knock", version)
			return err
		}
		return printJSON(cmd, struct {
			Version string `json:"version"`
			Go      string `json:"go"`
			OS      string `json:"os"`
			Arch    string `json:"arch"`
		}{version, runtime.Version(), runtime.GOOS, runtime.GOARCH})
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

const modulePath = "github.com/caddy-knock/caddy-knock"

// version is what the host says, else what the build knows of the module.
func (a *app) version() string {
	if a.Version != "" {
		return a.Version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
			if m.Path == modulePath && m.Version != "" {
				return m.Version
			}
		}
	}
	return "(devel)"
}

func (a *app) manCommand() *cobra.Command {
	return a.command(cobra.Command{
		Use: "man DIR", Short: "Write the manual pages to a folder",
		Long:    "Write a manual page for each command to a folder, which is made if it is missing.\nThe pages' date is that of SOURCE_DATE_EPOCH if it is set.",
		Example: "  {cmd} man ~/.local/share/man/man1",
	}, cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return fmt.Errorf("writing manual pages: %w", err)
		}
		a.top.DisableAutoGenTag = true
		header := doc.GenManHeader{Section: "1", Source: "caddy-knock " + a.version(), Manual: "caddy-knock"}
		if err := doc.GenManTree(a.top, &header, args[0]); err != nil {
			return fmt.Errorf("writing manual pages: %w", err)
		}
		return nil
	})
}
