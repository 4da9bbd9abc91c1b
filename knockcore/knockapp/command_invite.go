// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-knock/caddy-knock/knockcore/device"
)

func inviteCommand() *cobra.Command {
	var call adminCall
	var life time.Duration
	var page, pngFile, svgFile string
	var noQR bool
	cmd := call.flags(&cobra.Command{
		Use:   "invite CLIENT",
		Short: "Invites a device, by a link and a QR code that are good once",
		Long: `Invites a device of a client: whoever opens the link, or scans the QR code, gets a key
for that device and may knock as the client. The link is good once, and for minutes.
Treat it as a password until then.

On the command line, caddy-knock join LINK does the same.`,
		Example: `  caddy knock invite phone
  caddy knock invite family --for 1h --png invitation.png`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			order := map[string]any{"client": args[0], "page": page, "life": life}
			var made invitation
			if done, err := call.do(cmd, http.MethodPost, "/knock/invites", order, &made); done || err != nil {
				return err
			}
			code, err := newQR(made.Link)
			if err != nil {
				return err
			}
			if pngFile != "" {
				if err := os.WriteFile(pngFile, code.PNG(), 0o600); err != nil {
					return err
				}
			}
			if svgFile != "" {
				if err := os.WriteFile(svgFile, []byte(code.SVG()), 0o600); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			if !noQR {
				file, ok := out.(*os.File)
				fmt.Fprint(out, code.Terminal(ok && term.IsTerminal(int(file.Fd()))))
			}
			_, err = fmt.Fprintf(out, "%s\n\nFor a device of %s, once, until %s.\n", made.Link, made.Client, made.Expires.Local().Format(time.TimeOnly))
			return err
		},
	})
	fs := cmd.Flags()
	fs.DurationVar(&life, "for", device.DefaultLife, "How long the invitation is good")
	fs.StringVar(&page, "page", "", "URL of the page, if the configuration does not say it")
	fs.StringVar(&pngFile, "png", "", "Write the QR code to this file, as PNG")
	fs.StringVar(&svgFile, "svg", "", "Write the QR code to this file, as SVG")
	fs.BoolVar(&noQR, "no-qr", false, "Print the link only")
	return cmd
}

func devicesCommand() *cobra.Command {
	var call adminCall
	var client string
	cmd := call.flags(&cobra.Command{
		Use:   "devices",
		Short: "Lists the devices that joined by invitation, or revokes some",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := make(url.Values)
			if client != "" {
				q.Set("client", client)
			}
			var list struct{ Devices []deviceJSON }
			if done, err := call.do(cmd, http.MethodGet, "/knock/devices?"+q.Encode(), nil, &list); done || err != nil {
				return err
			}
			w := table(cmd, "DEVICE", "CLIENT", "NAME", "JOINED", "GRANTS")
			for _, d := range list.Devices {
				owner := d.Client
				if d.Orphan {
					owner += " (gone)"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", d.ID, owner, d.Name, d.Joined.Local().Format(time.DateTime), d.Grants)
			}
			return w.Flush()
		},
	})
	cmd.Flags().StringVar(&client, "client", "", "Those of this client")
	cmd.AddCommand(revokeDevicesCommand())
	return cmd
}

func revokeDevicesCommand() *cobra.Command {
	var call adminCall
	var client string
	cmd := call.flags(&cobra.Command{
		Use:   "revoke DEVICE...",
		Short: "Takes away the keys of devices, and ends what they opened",
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"id": args}
			if client != "" {
				q.Set("client", client)
			}
			if len(args) == 0 {
				if q.Del("id"); client == "" {
					return fmt.Errorf("name devices, or the client whose devices are meant with --client")
				}
			}
			var answer struct{ Revoked int }
			if done, err := call.do(cmd, http.MethodDelete, "/knock/devices?"+q.Encode(), nil, &answer); done || err != nil {
				return err
			}
			if answer.Revoked < len(args) {
				return fmt.Errorf("%d revoked; the others of %s are not there", answer.Revoked, strings.Join(args, " "))
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d revoked\n", answer.Revoked)
			return err
		},
	})
	cmd.Flags().StringVar(&client, "client", "", "All devices of this client")
	return cmd
}
