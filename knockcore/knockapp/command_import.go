// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/importer"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// importFlags are the flags of `caddy knock import`.
type importFlags struct {
	client string
	ports  []string
	save   bool
	force  bool
}

// importers are the dialects: each makes a Caddyfile, or profiles.
var importers = []struct {
	name, short string
	server      func([]byte, importer.Options) (string, error)
	profiles    func([]byte, importer.Options) ([]importer.Profile, error)
}{
	{name: "knockd", short: "A knockd.conf", server: importer.Knockd},
	{name: "knock-rs", short: "The configuration of knock-rs's server, of either format", server: importer.KnockRS},
	{name: "knock-rs-client", short: "The configuration of knock-rs's client: profiles", profiles: importer.KnockRSClient},
	{name: "fwknop", short: "fwknop's access.conf", server: importer.Fwknop},
	{name: "fwknoprc", short: "A .fwknoprc: profiles", profiles: importer.FwknopRC},
	{name: "knock-proxy", short: "The configuration of knock-proxy, or of its client: a profile", server: importer.KnockProxy, profiles: importer.KnockProxyClient},
}

func importCommand() *cobra.Command {
	var flags importFlags
	cmd := &cobra.Command{
		Use:   "import PROGRAM FILE",
		Short: "Make a Caddyfile, or profiles, from what other programs have",
		Long: `Read the configuration of another program and print the Caddyfile that does the same,
with a comment on each line that means something else than before ("changed"), lost
a weakness ("safer") or needs a decision ("todo"). What has no equivalent is an
error, and then nothing is printed. FILE may be - for standard input.

Files of clients become profiles: they are shown without secrets; --save keeps
them for the commands that knock.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&flags.client, "client", "", "the `ID` of the client, where the program knows none (default: the program's name)")
	cmd.PersistentFlags().StringArrayVar(&flags.ports, "port", nil, "what commands guard that do not say so, as `tcp/22`; may be repeated")
	cmd.PersistentFlags().BoolVar(&flags.save, "save", false, "keep the profiles")
	cmd.PersistentFlags().BoolVar(&flags.force, "force", false, "with --save, replace profiles of the same name")
	for _, dialect := range importers {
		cmd.AddCommand(&cobra.Command{
			Use: dialect.name + " FILE", Short: dialect.short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				b, err := readInput(cmd, args[0])
				if err != nil {
					return err
				}
				o := importer.Options{File: args[0], Client: flags.client, Ports: flags.ports}
				if dialect.server != nil && (dialect.profiles == nil || !importer.IsKnockProxyClient(b)) {
					text, err := dialect.server(b, o)
					return printImported(cmd, text, err)
				}
				profiles, err := dialect.profiles(b, o)
				if err != nil {
					return importFailed(cmd, err)
				}
				return flags.keep(cmd, profiles)
			},
		})
	}
	cmd.AddCommand(&cobra.Command{
		Use: "knocker FILE [WHITELIST]", Short: "The knocker.yaml of a Knocker server, and its whitelist.json",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			var whitelist []byte
			if len(args) > 1 {
				if whitelist, err = readInput(cmd, args[1]); err != nil {
					return err
				}
			}
			text, err := importer.Knocker(b, whitelist, importer.Options{File: args[0], Ports: flags.ports}, time.Now())
			return printImported(cmd, text, err)
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use: "pyknock -- [-b ADDRESS] [-p PORT] [-t SECONDS] KEY OPEN_COMMAND CLOSE_COMMAND", Short: "The arguments of pyknock's server",
		Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := importer.Pyknock(args, importer.Options{Client: flags.client, Ports: flags.ports})
			return printImported(cmd, text, err)
		},
	})
	return cmd
}

func readInput(cmd *cobra.Command, path string) ([]byte, error) {
	var r io.Reader = cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	return io.ReadAll(io.LimitReader(r, importer.MaxInput+1))
}

func printImported(cmd *cobra.Command, text string, err error) error {
	if err != nil {
		return importFailed(cmd, err)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// importFailed tells of all that is wrong, a line each.
func importFailed(cmd *cobra.Command, err error) error {
	lines := strings.Split(err.Error(), "\n")
	for _, line := range lines {
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	return fmt.Errorf("not imported; problems: %d", len(lines))
}

// keep shows the profiles, and saves them if that is asked for.
func (f *importFlags) keep(cmd *cobra.Command, list []importer.Profile) error {
	for _, p := range list {
		for _, note := range p.Notes {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", p.Name, note)
		}
		if f.save {
			profiles, err := knockclient.DefaultProfiles()
			if err != nil {
				return err
			}
			if err := profiles.Save(p.Name, p.Profile, f.force); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "saved profile %s: %s\n", p.Name, profiles.Path(p.Name))
			continue
		}
		text, err := p.MarshalJSON()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "# %s\n%s", p.Name, text)
	}
	return nil
}
