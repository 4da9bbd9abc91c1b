// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func (a *app) joinCommand() *cobra.Command {
	var profileName, deviceName string
	var force bool
	cmd := a.command(cobra.Command{
		Use:   "join LINK|- [flags]",
		Short: "Accept an invitation to knock by HTTP",
		Long: `Accept an invitation that "caddy knock invite" made: this device gets a key of its
own, which is kept in a profile. The link is good once. With - it is read from
standard input, so that it does not show in the list of processes.`,
		Example: `
  {cmd} join 'https://knock.example.com/join#…' --profile home
  {cmd} http knock home`,
	}, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		link := args[0]
		if link == "-" {
			text, err := io.ReadAll(io.LimitReader(a.stdin(), 4096))
			if err != nil {
				return err
			}
			link = string(text)
		}
		invitation, err := knockclient.ParseInvitation(link)
		if err != nil {
			return usageError(err)
		}
		profiles, err := knockclient.DefaultProfiles()
		if err != nil {
			return configError(err)
		}
		if profileName == "" {
			profileName = hostOf(invitation.URL)
		}
		// Before the invitation is used up.
		if _, err := os.Stat(profiles.Path(profileName)); err == nil && !force {
			err := configError(fmt.Errorf("there is a profile %s already", profileName))
			err.hint = "Give --force to replace it, or --profile for another name."
			return err
		}
		joined, err := invitation.Join(cmd.Context(), deviceName)
		if err != nil {
			return httpFailure(err)
		}
		profile := &knockclient.Profile{HTTP: &knockclient.ProfileHTTP{URL: invitation.URL, Key: joined.Key}}
		if err = profile.Validate(); err == nil {
			err = profiles.Save(profileName, profile, force)
		}
		if err != nil {
			return configError(err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "This is a device of %s now. Saved as %s. Try: %s http knock %s\n",
			joined.Client, profiles.Path(profileName), a.Name, profileName)
		return err
	})
	host, _ := os.Hostname()
	cmd.Flags().StringVar(&profileName, "profile", "", "the `NAME` of the profile (default: the server's host)")
	cmd.Flags().StringVar(&deviceName, "name", host, "what this device is called at the server")
	cmd.Flags().BoolVar(&force, "force", false, "replace a profile of this name")
	return cmd
}

// hostOf is the host in a URL that was checked.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Hostname()
}
