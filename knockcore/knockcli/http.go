// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// apiKeyEnv is the environment variable that holds an API key.
const apiKeyEnv = "CADDY_KNOCK_API_KEY"

func (a *app) httpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "http",
		Short: "Knock by HTTP",
		Long: a.text(`Knock over HTTPS with an API key, at Caddy's handler knock or at a Knocker
server: the address that you come from is let in for a time.

The server is a URL, or the name of a profile that has one. The key stands in the
profile, in a file (--key-file), or in the environment variable ` + apiKeyEnv + `.`),
	}
	a.group(cmd)
	cmd.AddCommand(a.httpKnockCommand(), a.httpWatchCommand(), a.httpImportCommand())
	return cmd
}

// httpFlags say where and how to knock.
type httpFlags struct {
	keyFile          string
	ttl              time.Duration
	address          string
	only4, only6     bool
	asJSON, insecure bool
}

func (f *httpFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.keyFile, "key-file", "", "read the API key from `FILE`, which only you may read; - is standard input")
	fs.DurationVar(&f.ttl, "ttl", 0, "how long to ask for, such as 8h (default: as long as the key may)")
	fs.StringVar(&f.address, "address", "", "knock for this `ADDRESS` or network instead of your own")
	fs.BoolVarP(&f.only4, "ipv4", "4", false, "knock over IPv4; with -6 too, over both")
	fs.BoolVarP(&f.only6, "ipv6", "6", false, "knock over IPv6")
	fs.BoolVar(&f.asJSON, "json", false, "print one line of JSON for each knock")
	fs.BoolVar(&f.insecure, insecureFileMode, false, "accept a key file that others may read")
}

// httpKnocks makes the knocks of the command line: one, or one for each family.
func (a *app) httpKnocks(cmd *cobra.Command, server string, f *httpFlags) ([]*knockclient.HTTPKnock, error) {
	var knock *knockclient.HTTPKnock
	if strings.Contains(server, "://") {
		knock = &knockclient.HTTPKnock{URL: server}
	} else {
		profiles, err := knockclient.DefaultProfiles()
		if err != nil {
			return nil, configError(err)
		}
		profile, err := profiles.Load(server)
		if err != nil {
			return nil, a.profileError(err, server)
		}
		if knock = profile.HTTPKnock(); knock == nil {
			return nil, configError(fmt.Errorf("profile %s has no knock by HTTP", server))
		}
	}
	key, err := a.apiKey(f)
	if err != nil {
		return nil, configError(err)
	}
	if !key.IsZero() {
		knock.Key = key
	}
	if cmd.Flags().Changed("ttl") {
		knock.TTL = f.ttl
	}
	if f.address != "" {
		knock.Address = f.address
	}
	if knock.Key.IsZero() {
		err := configError(errors.New("there is no API key"))
		err.hint = "Give --key-file FILE, or set " + apiKeyEnv + "."
		return nil, err
	}
	if err := knock.Validate(); err != nil {
		return nil, usageError(err)
	}
	if knock.Clear() {
		warn(cmd, "%s is not encrypted: the API key can be read on the way", knock.URL)
	}
	var knocks []*knockclient.HTTPKnock
	for network, wanted := range map[string]bool{"tcp4": f.only4, "tcp6": f.only6, "": !f.only4 && !f.only6} {
		if wanted {
			k := *knock
			k.Network = network
			knocks = append(knocks, &k)
		}
	}
	return knocks, nil
}

// apiKey reads the key that flags or environment give; zero if they give none.
func (a *app) apiKey(f *httpFlags) (knockcore.Secret, error) {
	switch {
	case f.keyFile == "-":
		line, err := io.ReadAll(io.LimitReader(a.stdin(), 64<<10))
		return knockcore.NewSecret([]byte(strings.TrimSpace(string(line)))), err
	case f.keyFile != "":
		return knockclient.ReadAPIKeyFile(f.keyFile, f.insecure)
	default:
		return knockcore.NewSecret([]byte(strings.TrimSpace(os.Getenv(apiKeyEnv)))), nil
	}
}

func (a *app) httpKnockCommand() *cobra.Command {
	var flags httpFlags
	cmd := a.command(cobra.Command{
		Use:   "knock SERVER [flags]",
		Short: "Knock once",
		Long:  "Knock once, and say what was let in until when.",
		Example: `
  {cmd} http knock https://knock.example.com --key-file phone.key

  # for the television, for the evening
  {cmd} http knock home --address 203.0.113.7 --ttl 4h`,
	}, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		knocks, err := a.httpKnocks(cmd, args[0], &flags)
		if err != nil {
			return err
		}
		var failed error
		for _, k := range knocks {
			grant, err := k.Knock(cmd.Context())
			if err != nil {
				failed = errors.Join(failed, httpFailure(err))
				continue
			}
			if err := printGrant(cmd, grant, flags.asJSON); err != nil {
				return err
			}
		}
		return failed
	})
	flags.add(cmd)
	cmd.ValidArgsFunction = completeProfiles
	return cmd
}

// httpFailure gives a failed knock its exit code.
func httpFailure(err error) error {
	var answer *knockclient.HTTPError
	var network *net.OpError
	switch {
	case errors.As(err, &answer):
		return &failure{code: ExitProof, err: err}
	case errors.As(err, &network):
		return &failure{code: ExitUnreachable, err: err}
	default:
		return err
	}
}

// grantLine is what is told of a knock, as JSON.
type grantLine struct {
	Entry     string    `json:"entry"`
	Expires   time.Time `json:"expires"`
	ExpiresIn int64     `json:"expires_in_seconds"`
}

func printGrant(cmd *cobra.Command, g *knockclient.HTTPGrant, asJSON bool) error {
	if asJSON {
		return printJSON(cmd, grantLine{g.Entry, g.Expires, int64(g.For / time.Second)})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is in for %v, until %s\n", g.Entry, g.For, g.Expires.Local().Format(time.DateTime))
	return err
}
