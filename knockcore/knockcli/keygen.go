// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// secretLen is the number of bytes in a secret that keygen makes.
const secretLen = 32

// keygenFlags are the flags of the command.
type keygenFlags struct {
	client, server string
	services       []string
	save, force    bool
	asJSON         bool
}

func (a *app) keygenCommand() *cobra.Command {
	var flags keygenFlags
	cmd := a.command(cobra.Command{
		Use:   "keygen [flags]",
		Short: "Make a secret, and what server and client need of it",
		Long: `Make a secret of 32 random bytes, and print the lines for the server's Caddyfile
and the client's profile. Each has the secret in it: whoever reads it can knock.`,
		Example: `
  {cmd} keygen --client alice --services ssh --server ssh.example.org:2222

  # client and server are the same machine, or you bring the lines to the server
  {cmd} keygen --client alice --server ssh.example.org:2222 --save`,
	}, cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return a.keygen(cmd, &flags) })
	fs := cmd.Flags()
	fs.StringVar(&flags.client, "client", "", "the client's `ID` (default: a random one)")
	fs.StringVar(&flags.server, "server", "", "`HOST[:PORT]` that the client connects to")
	fs.StringSliceVar(&flags.services, "services", nil, "`names` of the services that the client may reach, or all")
	fs.BoolVar(&flags.save, "save", false, "save the profile here, under the client's ID")
	fs.BoolVar(&flags.force, "force", false, "with --save: replace a profile of the same name")
	fs.BoolVar(&flags.asJSON, "json", false, "print one line of JSON")
	return cmd
}

// generated is what keygen prints as JSON.
type generated struct {
	Client    string `json:"client"`
	Secret    string `json:"secret"`
	Caddyfile string `json:"caddyfile"`
	Profile   any    `json:"profile"`
	SavedAs   string `json:"saved_as,omitempty"`
}

func (a *app) keygen(cmd *cobra.Command, flags *keygenFlags) error {
	if flags.force && !flags.save {
		return usagef("--force goes with --save")
	}
	profile := &knockclient.Profile{Client: flags.client, ServerProof: true}
	random := make([]byte, secretLen)
	_, _ = rand.Read(random) // never fails: see crypto/rand
	profile.Secret = knockcore.NewSecret(random)
	if profile.Client == "" {
		name := make([]byte, 4)
		_, _ = rand.Read(name)
		profile.Client = "client-" + hex.EncodeToString(name)
	}
	for _, name := range append([]string{profile.Client}, flags.services...) {
		if err := caddyfileWord(name); err != nil {
			return usageError(err)
		}
	}
	if flags.server != "" {
		if err := setServer(profile, flags.server); err != nil {
			return err
		}
	}
	path, err := a.saveGenerated(profile, flags)
	if err != nil {
		return err
	}
	text, err := profile.Text()
	if err != nil {
		return err
	}
	lines := caddyfileLines(profile, flags.services)
	if flags.asJSON {
		return printJSON(cmd, generated{
			Client: profile.Client, Secret: knockclient.SecretText(profile.Secret),
			Caddyfile: lines, Profile: rawJSON(text), SavedAs: path,
		})
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, `# Server: into the global options of the Caddyfile. Better: put the text behind
# the word secret into a file of its own that only Caddy may read, and write
#     secret {file./etc/caddy/knock/%s.key}
%s
`, profile.Client, lines)
	if path != "" {
		_, err = fmt.Fprintf(out, "# Client: saved as %s\n", path)
		return err
	}
	_, err = fmt.Fprintf(out, "# Client: save as caddy-knock/profiles/%s in your configuration directory\n# (~/.config on Linux), and chmod 600 it.\n%s",
		(knockclient.Profiles{}).Path(profile.Client), text)
	return err
}

// saveGenerated saves the profile if it should, and returns its path.
func (a *app) saveGenerated(profile *knockclient.Profile, flags *keygenFlags) (string, error) {
	if !flags.save {
		return "", nil
	}
	profiles, err := knockclient.DefaultProfiles()
	if err == nil {
		err = profiles.Save(profile.Client, profile, flags.force)
	}
	if err != nil {
		f := configError(err)
		if errors.Is(err, fs.ErrExist) {
			f.hint = a.text("Give --force to replace it; its secret is lost then.\n" +
				"For one more server leave --save out, and keep the secret with: {cmd} profile add " + profile.Client + "@HOST")
		}
		return "", f
	}
	return profiles.Path(profile.Client), nil
}

// caddyfileLines is the server's side of a profile.
func caddyfileLines(p *knockclient.Profile, services []string) string {
	reach := "# services NAME...   (those it may reach; without this line, none)"
	if len(services) > 0 {
		reach = "services " + strings.Join(services, " ")
	}
	return fmt.Sprintf("knock {\n\tclient %s {\n\t\tsecret %s\n\t\t%s\n\t}\n}\n", p.Client, knockclient.SecretText(p.Secret), reach)
}

// caddyfileWord checks that a name stands for itself in a Caddyfile.
func caddyfileWord(name string) error {
	if err := knockcore.ValidateID(name); err != nil {
		return fmt.Errorf("name %q: %w", name, err)
	}
	if strings.ContainsAny(name, "{}\"`#\\") {
		return fmt.Errorf("name %q has characters that mean something in a Caddyfile: one of {}\"`#\\", name)
	}
	return nil
}
