// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func (a *app) profileCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "List, show, add and remove profiles",
		Long: a.text(`A profile keeps client, secret and server, so that commands need no flags. It is
a file that only you may read, in the folder caddy-knock/profiles of your
configuration directory: ~/.config on Linux, ~/Library/Application Support on
macOS, %AppData% on Windows. Secrets are never printed.`),
	}
	a.group(cmd)
	cmd.AddCommand(a.profileListCommand(), a.profileShowCommand(), a.profileAddCommand(), a.profileRemoveCommand())
	return cmd
}

// listedProfile is what `profile list` tells of one.
type listedProfile struct {
	Name   string `json:"name"`
	Client string `json:"client,omitempty"`
	Server string `json:"server,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Method string `json:"method,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (a *app) profileListCommand() *cobra.Command {
	var asJSON bool
	cmd := a.command(cobra.Command{
		Use: "list [flags]", Aliases: []string{"ls"}, Short: "List the profiles",
		Long: "List the profiles. Those that can't be used are listed with the cause.",
	}, cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		profiles, names, err := profileNames()
		if err != nil {
			return err
		}
		list := make([]listedProfile, len(names))
		for i, name := range names {
			list[i].Name = name
			p, err := profiles.Load(name)
			if err != nil {
				list[i].Error = err.Error()
				continue
			}
			list[i].Client, list[i].Server, list[i].Port, list[i].Method = p.Client, p.Server, p.Port, p.Method.String()
		}
		if asJSON {
			return printJSON(cmd, list)
		}
		if len(list) == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "There are no profiles in %s.\n", profiles.Dir)
			return nil
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tCLIENT\tSERVER\tNOTE")
		for _, p := range list {
			server := p.Server
			if p.Port != 0 {
				server = net.JoinHostPort(server, strconv.Itoa(int(p.Port)))
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, dash(p.Client), dash(server), p.Error)
		}
		return w.Flush()
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) profileShowCommand() *cobra.Command {
	cmd := a.command(cobra.Command{
		Use: "show NAME", Short: "Show a profile, without its secret",
		Long: "Show a profile as JSON, with [secret] in the place of the secret. The path of\nits file goes to standard error.",
	}, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		profiles, err := knockclient.DefaultProfiles()
		if err != nil {
			return configError(err)
		}
		p, err := profiles.Load(args[0])
		if err != nil {
			return a.profileError(err, args[0])
		}
		if p.SecretFile != "" {
			p.Secret = knockclient.Profile{}.Secret // its place is the file
		}
		text, err := json.MarshalIndent(p, "", "\t")
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.ErrOrStderr(), profiles.Path(args[0]))
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
		return err
	})
	cmd.ValidArgsFunction = completeProfiles
	return cmd
}

func (a *app) profileAddCommand() *cobra.Command {
	var flags authFlags
	var knock profileKnockFlags
	var server string
	var force bool
	cmd := a.command(cobra.Command{
		Use:   "add NAME [flags]",
		Short: "Add a profile",
		Long: `Add a profile. It is named after the client, or CLIENT@HOST where a client is not
the same at all servers. Without a flag for the secret, the secret is asked for.
With --secret-file the profile refers to the file; otherwise it holds the secret.
Connections wait for the server's proof that it knows the secret, unless
--server-proof=false says not to.

A profile with a server is used for that server only.

With --knock, connect, forward and open knock first. The knock is made with the
profile's secret, or by pyknock and fwknop with keys of their own; after these no
frame follows unless --secret-file or the like gives its secret.`,
		Example: `
  {cmd} profile add alice --server ssh.example.org:2222
  {cmd} profile add alice@db --client alice --secret-file ~/alice.key
  pass show knock/alice | {cmd} profile add alice --secret-stdin
  {cmd} profile add alice --server ssh.example.org:2222 --knock udp
  {cmd} profile add old --server old.example.org:22 --knock pyknock --knock-secret-file ~/old.psk`,
	}, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		return a.profileAdd(cmd, args[0], &flags, &knock, server, force)
	})
	cmd.Flags().StringVar(&flags.client, "client", "", "the client's `ID` (default: NAME up to the last @)")
	cmd.Flags().StringVar(&server, "server", "", "`HOST[:PORT]` that the profile is for (default: any, or the part of NAME after @)")
	cmd.Flags().BoolVar(&force, "force", false, "replace a profile of the same name")
	flags.secretFlags.add(cmd, true)
	flags.addMethod(cmd)
	cmd.Flags().Lookup("server-proof").DefValue = "true" // where a frame is sent, see profileAdd
	cmd.Flags().DurationVar(&flags.connectTimeout, "connect-timeout", defaultConnectTimeout, "how long connecting may take")
	knock.add(cmd)
	return cmd
}

func (a *app) profileAdd(cmd *cobra.Command, name string, flags *authFlags, knock *profileKnockFlags, server string, force bool) error {
	profile := &knockclient.Profile{Client: flags.client}
	client, host := name, ""
	if i := strings.LastIndexByte(name, '@'); i >= 0 {
		client, host = name[:i], name[i+1:]
	}
	if profile.Client == "" {
		profile.Client = client
	}
	if server == "" {
		server = host
	}
	if server != "" {
		if err := setServer(profile, server); err != nil {
			return err
		}
	}
	if err := flags.override(cmd, profile); err != nil {
		return err
	}
	if !cmd.Flags().Changed("connect-timeout") {
		profile.ConnectTimeout = 0
	}
	err := knock.apply(a, cmd, profile)
	if err != nil {
		return err
	}
	if profile.Secret, err = a.secret(cmd, &flags.secretFlags); err != nil {
		return err
	}
	if k := profile.Knock; k != nil && !knockclient.UsesSecret(k.Method) && profile.Secret.IsZero() {
		k.NoFrame = true
	}
	if !cmd.Flags().Changed("server-proof") {
		profile.ServerProof = profile.Knock == nil || !profile.Knock.NoFrame
	}
	if profile.Secret.IsZero() && needsSecret(profile) {
		if profile.Secret, err = a.askSecret(cmd); err != nil {
			return configError(err)
		}
	}
	if flags.file != "" {
		if profile.SecretFile, err = filepath.Abs(flags.file); err != nil {
			return configError(err)
		}
	}
	if err := profile.Validate(); err != nil {
		return configError(err)
	}
	profiles, err := knockclient.DefaultProfiles()
	if err == nil {
		err = profiles.Save(name, profile, force)
	}
	if err != nil {
		f := configError(err)
		if errors.Is(err, fs.ErrExist) {
			f.hint = "Give --force to replace it. For one more server, name the profile CLIENT@HOST."
		}
		return f
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Saved as %s\n", profiles.Path(name))
	return nil
}

func (a *app) profileRemoveCommand() *cobra.Command {
	cmd := a.command(cobra.Command{
		Use: "remove NAME...", Aliases: []string{"rm"}, Short: "Remove profiles",
		Long: "Remove profiles. A file that a profile names as secret_file stays.",
	}, cobra.MinimumNArgs(1), func(_ *cobra.Command, args []string) error {
		profiles, err := knockclient.DefaultProfiles()
		if err != nil {
			return configError(err)
		}
		for _, name := range args {
			err = errors.Join(err, profiles.Remove(name))
		}
		if err != nil {
			return configError(err)
		}
		return nil
	})
	cmd.ValidArgsFunction = completeProfiles
	return cmd
}

// setServer reads HOST[:PORT] into the profile.
func setServer(p *knockclient.Profile, text string) error {
	t, err := parseTarget([]string{text})
	if err != nil {
		return err
	}
	if t.user != "" {
		return usagef("server %q has a client in it; give that with --client", text)
	}
	p.Server = t.host
	if t.port != "" {
		p.Port, err = parsePort(t.port)
	}
	return err
}

func profileNames() (knockclient.Profiles, []string, error) {
	profiles, err := knockclient.DefaultProfiles()
	if err != nil {
		return profiles, nil, configError(err)
	}
	names, err := profiles.Names()
	if err != nil {
		return profiles, nil, configError(err)
	}
	return profiles, names, nil
}
