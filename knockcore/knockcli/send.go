// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

func (a *app) sendCommand() *cobra.Command {
	var flags knockFlags
	cmd := a.command(cobra.Command{
		Use:   "send [--method METHOD] " + targetUsage + " [PORT|SERVICE]... [flags]",
		Short: "Knock by datagram, or by a crafted SYN",
		Long: `Knock at all addresses of a host by datagram: libknock's udp methods, pyknock or
fwknop; by a sequence of ports; or, with libknock's tcp-syn methods, by SYNs that
look like the beginning of a connection to PORT, for which Linux wants CAP_NET_RAW
(root, or once "setcap cap_net_raw=+ep" on this program). Addresses that can't be
reached are skipped. Nobody answers to a knock: success means that it left.

PORT is what to knock for, a number or the name of a service, with udp/ before it
if it is not TCP: what stands behind HOST, else the profile's. Libknock's
datagrams name one port each, so that several ports make several knocks. The UDP
port that they go to is --knock-port. pyknock's datagrams name no port.

With --method port-sequence, what stands behind HOST are the ports to knock at, in
order: 7000 or tcp/7000, udp/8000, or as of knockd 8000:udp. --sequence-file takes
them from a file of one-time sequences and keeps it in step. There is no client and
no secret; a profile may hold the ports.

Client and secrets come from a profile, as for connect. For pyknock, the secret is
the pre-shared key; for fwknop the encryption key, beside --hmac-secret-file.

It exits 0 if the knock left for one address at least, 2 for wrong usage, 3 for a
profile or secret that can't be used, 4 if no address could be knocked at.`,
		Example: `
  {cmd} send alice@ssh.example.org:2222

  # a sequence of four parts, sent twice
  {cmd} send --method udp-seq --parts 4 --retry 1 alice@ssh.example.org ssh https

  # to a port that is closed: nothing shows that it was more than a try
  sudo {cmd} send --method tcp-syn --profile ssh alice@ssh.example.org:22

  # for servers of other makes
  {cmd} send --method pyknock --secret-file alice.psk host.example.org
  {cmd} send --method fwknop --secret-file alice.key --hmac-secret-file alice.hmac \
      --address 203.0.113.7 --open-for 1m alice@host.example.org tcp/22 udp/53
  {cmd} send --method port-sequence --delay 100ms host.example.org 7000 8000:udp 9000`,
	}, cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error { return a.send(cmd, args, &flags, false) })
	flags.add(cmd)
	flags.addOpen(cmd)
	a.completeTargets(cmd)
	return cmd
}

func (a *app) closeCommand() *cobra.Command {
	var flags knockFlags
	cmd := a.command(cobra.Command{
		Use:   "close [--method pyknock] [CLIENT@]HOST [flags]",
		Short: "Close what a knock has opened",
		Long: `Close what a knock has opened for this address, or for --address. Only pyknock can:
what other methods opened closes by itself when its time is over.`,
		Example: `
  {cmd} close --method pyknock --secret-file alice.psk host.example.org`,
	}, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error { return a.send(cmd, args, &flags, true) })
	flags.add(cmd)
	a.completeTargets(cmd)
	return cmd
}

// parseKnockTarget reads CLIENT@HOST[:PORT], HOST being also an IPv6 address
// without brackets if nothing is behind it.
func parseKnockTarget(text string) (target, error) {
	i := strings.LastIndexByte(text, '@')
	if addr, err := netip.ParseAddr(text[i+1:]); err == nil && addr.Is6() {
		text = text[:i+1] + "[" + text[i+1:] + "]"
	}
	return parseTarget([]string{text})
}

// takeSteps reads the steps of a port sequence.
func (f *knockFlags) takeSteps(t target, args []string) error {
	if t.port != "" {
		return usagef("a port sequence stands behind the host: HOST PORT PORT...")
	}
	if len(args) > 0 && f.sequenceFile != "" {
		return usagef("there are both ports and --sequence-file; keep one")
	}
	for _, text := range args {
		step, err := sequence.ParseStep(text)
		if err != nil {
			return usageError(err)
		}
		f.steps = append(f.steps, step)
	}
	return nil
}

func (a *app) send(cmd *cobra.Command, args []string, flags *knockFlags, closing bool) error {
	t, err := parseKnockTarget(args[0])
	if err != nil {
		return err
	}
	if flags.method == knockcore.MethodPortSequence.String() {
		if err := flags.takeSteps(t, args[1:]); err != nil {
			return err
		}
		args = args[:1]
	}
	p, err := a.resolveKnock(cmd, t, flags)
	if err != nil {
		return err
	}
	knock := &p.dialer.Opening.Knock
	if knock.Ports = p.ports; len(args) > 1 {
		if t.port != "" {
			return usagef("there are two places for ports: behind HOST, and as arguments; use one")
		}
		knock.Ports = nil
		for _, text := range args[1:] {
			port, err := parseKnockPort(text)
			if err != nil {
				return err
			}
			knock.Ports = append(knock.Ports, port)
		}
	}
	knock.Close = closing
	switch {
	case closing && !knockclient.CanClose(knock.Method):
		return usagef("closing by knock is not possible with method %s, only with pyknock; what it opened closes by itself", methodName(knock.Method))
	case knock.Method == knockcore.MethodPyknock && len(args) > 1:
		return usagef("pyknock names no port: the server knows what to open; leave out %s", strings.Join(args[1:], " "))
	case knock.Method == knockcore.MethodPortSequence:
		if len(args) > 1 {
			return usagef("the profile knocks by port-sequence; give --method port-sequence with other steps")
		}
	case knock.Method != knockcore.MethodPyknock && len(knock.Ports) == 0:
		return usagef("nothing says for which port to knock; give HOST:PORT, or PORT behind HOST")
	}
	if err := knock.Validate(); err != nil {
		return configError(err)
	}
	opening := p.dialer.Opening
	host := p.knockHost()
	sent, err := opening.Sender.Send(cmd.Context(), host, opening.Port, *knock)
	report := newKnockReport(knock, host, sent)
	return p.finish(cmd, report, err)
}

// knockHost is where to knock.
func (p *plan) knockHost() string {
	if host := p.dialer.Opening.Host; host != "" {
		return host
	}
	return p.host
}

func methodName(m knockcore.Method) string {
	if m == knockcore.MethodNone {
		m = knockcore.MethodUDP
	}
	return m.String()
}

// finish prints the report and turns the error into a failure.
func (p *plan) finish(cmd *cobra.Command, r *knockReport, err error) error {
	if err != nil {
		r.Error = err.Error()
	}
	r.OK = err == nil
	if p.flags.verbose {
		r.printDetails(cmd.ErrOrStderr())
	}
	switch {
	case p.flags.quiet:
	case p.flags.asJSON:
		if err := printJSON(cmd, r); err != nil {
			return err
		}
	case err == nil:
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), r); err != nil {
			return err
		}
	}
	if err != nil {
		return p.dialError(err)
	}
	return nil
}
