// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"errors"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func (a *app) openCommand() *cobra.Command {
	var flags knockFlags
	cmd := a.command(cobra.Command{
		Use:   "open [--method METHOD] " + targetUsage + " [PORT] [flags]",
		Short: "Knock, connect, and report what happened",
		Long: `Knock by datagram at all addresses of a host, connect to the port that should be
open then, and report what happened. The connection is closed again; what the
knock opened stays open for its time.

Attempts to connect begin after 0, 25, 50, 100, … ms, so that none waits for TCP's
retransmission after a second. The profile says how to knock, or --method does. With a profile whose knock has no
"frame": false, the frame follows that authenticates the connection, with the
knock's session; with --server-proof its answer is awaited. For connections that
stay, connect and forward knock too if the profile has a "knock".

It exits 0 when connected, 2 for wrong usage, 3 for a profile or secret that can't
be used, 4 if the knock could not be sent or no connection could be made, 5 if the
server did not prove itself.`,
		Example: `
  {cmd} open alice@ssh.example.org:2222 && ssh -p 2222 ssh.example.org

  {cmd} open --json --method pyknock --secret-file alice.psk host.example.org:22`,
	}, cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error { return a.open(cmd, args, &flags) })
	flags.add(cmd)
	flags.addOpen(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&flags.frame, "frame", false, "send the frame that authenticates the connection (default: as the profile says)")
	fs.Uint16Var(&flags.port, "port", 0, "the protected `port`, if it is not the one that you connect to")
	fs.BoolVar(&flags.serverProof, "server-proof", false, "wait until the server has proved that it knows the secret")
	fs.DurationVar(&flags.timeout, "timeout", knockclient.DefaultTimeout, "how long authenticating may take")
	fs.DurationVar(&flags.connectTimeout, "connect-timeout", defaultConnectTimeout, "how long connecting may take")
	a.completeTargets(cmd)
	return cmd
}

func (a *app) open(cmd *cobra.Command, args []string, flags *knockFlags) error {
	t, err := parseTarget(args)
	if err != nil {
		return err
	}
	p, err := a.resolveKnock(cmd, t, flags)
	if err != nil {
		return err
	}
	if p.address == "" {
		return usagef("neither the command line nor the profile says which port; give HOST:PORT")
	}
	if p.assumed {
		f := configError(errors.New("nothing says how to knock: the profile has no \"knock\""))
		f.hint = a.text("Give --method udp, or write it into the profile: {cmd} profile add --force --knock udp …\n" +
			"A server that wants the frame alone needs no knock: use {cmd} connect or forward.")
		return f
	}
	opening := p.dialer.Opening
	if m := opening.Knock.Method; m != knockcore.MethodPyknock && m != knockcore.MethodPortSequence {
		opening.Knock.Ports = p.ports
	}
	if err := opening.Knock.Validate(); err != nil {
		return configError(err)
	}
	if !opening.NoFrame {
		if err := p.dialer.Config.Validate(); err != nil {
			return configError(err)
		}
	}
	report := newKnockReport(&opening.Knock, p.knockHost(), nil)
	opening.Sent = report.add
	attempts := 0
	opening.Attempt = func(netip.AddrPort) { attempts++ }
	start := time.Now()
	conn, err := p.dialer.DialContext(cmd.Context(), p.network, p.address)
	if err == nil {
		report.Connected = &connectedReport{
			Address: conn.RemoteAddr().String(), Attempts: attempts, ElapsedMS: time.Since(start).Milliseconds(),
			Frame: !opening.NoFrame, ServerProof: !opening.NoFrame && p.dialer.Config.ServerProof,
		}
		_ = conn.Close()
	}
	return p.finish(cmd, report, err)
}
