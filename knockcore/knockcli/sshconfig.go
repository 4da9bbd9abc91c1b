// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func (a *app) sshConfigCommand() *cobra.Command {
	var alias, user string
	cmd := a.command(cobra.Command{
		Use:   "ssh-config " + targetUsage + " [flags]",
		Short: "Print the lines for ~/.ssh/config",
		Long: `Print the lines for ~/.ssh/config that make ssh, and all that use it (scp, rsync,
git), knock by themselves. Client and secret come from the profile when ssh runs.`,
		Example: `
  {cmd} ssh-config alice@ssh.example.org:2222 >> ~/.ssh/config
  {cmd} ssh-config --alias home --user root alice@192.0.2.7:2222`,
	}, cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
		t, err := parseTarget(args)
		if err != nil {
			return err
		}
		for _, word := range []string{t.host, alias, user} {
			if strings.ContainsAny(word, " \t\r\n\"'*?!,%#") {
				return usagef("%q can't stand in ssh's configuration as it is", word)
			}
		}
		return a.sshConfig(cmd, t, alias, user)
	})
	cmd.Flags().StringVar(&alias, "alias", "", "how you call the host (default: HOST)")
	cmd.Flags().StringVar(&user, "user", "", "the `user` to log in as, which is not the client")
	a.completeTargets(cmd)
	return cmd
}

func (a *app) sshConfig(cmd *cobra.Command, t target, alias, user string) error {
	port, client := t.port, "%h"
	if t.user != "" {
		client = strings.ReplaceAll(t.user, "%", "%%") + "@%h"
	}
	// The profile may know the port. Without one, these lines are good all the same.
	if profiles, err := knockclient.DefaultProfiles(); err == nil {
		_, profile, err := profiles.Find(t.user, t.host)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			warn(cmd, "there is no profile for this yet; add it with: %s profile add CLIENT --server %s", a.Name, t.host)
		case err != nil:
			warn(cmd, "ssh will not get through: %v", err)
		case port == "" && profile.Port != 0:
			port = fmt.Sprint(profile.Port)
		}
	}
	name := t.host
	if alias != "" {
		name = alias
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Host %s\n", name)
	if alias != "" {
		fmt.Fprintf(&b, "\tHostName %s\n", t.host)
	}
	if port != "" {
		n, err := parsePort(port)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\tPort %d\n", n)
	}
	if user != "" {
		fmt.Fprintf(&b, "\tUser %s\n", user)
	}
	fmt.Fprintf(&b, "\tProxyCommand %s connect %s %%p\n", a.commandLine(), shellWord(client))
	_, err := fmt.Fprint(cmd.OutOrStdout(), b.String())
	return err
}

// commandLine is how a shell calls this program: by its name if that is found,
// else by its path.
func (a *app) commandLine() string {
	name, rest, more := strings.Cut(a.Name, " ")
	if _, err := exec.LookPath(name); err != nil {
		if path, err := os.Executable(); err == nil {
			name = strings.ReplaceAll(shellWord(path), "%", "%%")
		}
	}
	if more {
		name += " " + rest
	}
	return name
}

// shellWord quotes a word for a shell if it needs that.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("%@_-+=:,./[]", r)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
