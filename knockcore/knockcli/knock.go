// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// knockFlags are the flags of commands that knock by datagram.
type knockFlags struct {
	authFlags
	hmac                   secretFlags
	digest, address, user  string
	source                 string
	knockPort              uint16
	parts, retry           int
	delay, openFor, slot   time.Duration
	both                   bool
	sequenceFile           string
	rawSYN                 bool
	steps                  []sequence.Step
	quiet, verbose, asJSON bool
	frame                  bool
}

// datagramMethods are the methods of send, in the words of usage.
const datagramMethods = "udp (the default), udp-seq, udp-passive, udp-passive-seq, tcp-syn, tcp-syn-seq, pyknock, fwknop or port-sequence"

func (f *knockFlags) add(cmd *cobra.Command) {
	f.hmac.prefix = "hmac-"
	fs := cmd.Flags()
	fs.StringVar(&f.profile, "profile", "", "use the profile `NAME`, whatever server it is for")
	fs.StringVar(&f.client, "client", "", "the client's `ID`, instead of CLIENT@")
	f.secretFlags.add(cmd, false)
	fs.BoolVar(&f.anyMode, insecureFileMode, false, "accept a secret file that others may read")
	fs.StringVar(&f.method, "method", "", "`method` of knocking: "+strings.Replace(datagramMethods, "udp-passive,", "udp-passive,\n", 1))
	fs.Uint16Var(&f.knockPort, "knock-port", 0, "the UDP `port` to knock at (default 62201; pyknock 60120)")
	fs.StringVar(&f.address, "address", "", "what to open for, of pyknock and fwknop: an `ADDRESS`, source (the default):\nthe one that the knock comes from, or auto: the one that the\nknock page of the profile sees")
	fs.StringVar(&f.source, "source", "", "the local `ADDRESS` to knock from; open connects from it too")
	fs.BoolVarP(&f.ipv4, "ipv4", "4", false, "use IPv4 only")
	fs.BoolVarP(&f.ipv6, "ipv6", "6", false, "use IPv6 only")
	fs.BoolVar(&f.both, "both", false, "fail unless the knock went out over both IPv4 and IPv6")
	fs.IntVar(&f.retry, "retry", 0, "knock `N` more times, each a fresh knock, against loss on the way")
	fs.DurationVar(&f.delay, "delay", knockclient.DefaultInterval, "the time between the parts of a sequence, and between retries")
	fs.StringVar(&f.sequenceFile, "sequence-file", "", "port-sequence: take the next sequence of `FILE`, and mark it as used")
	fs.BoolVar(&f.rawSYN, "raw-syn", false, "port-sequence: knock by single packets instead of connections that are given up\n(Linux, CAP_NET_RAW)")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print errors only")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "tell of each address on standard error")
	fs.BoolVar(&f.asJSON, "json", false, "print one line of JSON")
}

// addOpen adds what only opening needs.
func (f *knockFlags) addOpen(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.hmac.file, "hmac-secret-file", "", "fwknop: read the HMAC key from `FILE`, which only you may read")
	fs.StringVar(&f.hmac.env, "hmac-secret-env", "", "fwknop: read the HMAC key from the environment variable `NAME`")
	fs.StringVar(&f.hmac.text, "hmac-secret", "", "fwknop: the HMAC `key`; not safe on shared machines")
	fs.StringVar(&f.digest, "hmac", "sha256", "fwknop: the `digest` of the HMAC")
	fs.StringVar(&f.user, "user", "", "fwknop: the `name` in the packet (default: the client)")
	fs.DurationVar(&f.openFor, "open-for", 0, "fwknop: ask to open for so long (default: the server's choice)")
	fs.DurationVar(&f.slot, "slot", knockclient.DefaultSlot, "tcp-syn, tcp-syn-seq: how long a knock is the same,\nas the server expects")
	fs.IntVar(&f.parts, "parts", 3, "the `number` of parts of a sequence, 2 to 8 (tcp-syn-seq: to 5), as the\nserver expects")
}

// plan is what knockFlags, the target and a profile amount to.
type plan struct {
	session
	host    string
	named   bool // a profile was used
	assumed bool // neither the profile nor the flags say how to knock
	ports   []knockcore.PortRange
	flags   *knockFlags
}

// resolveKnock finds out where and how to knock: from the flags, else from the
// profile.
func (a *app) resolveKnock(cmd *cobra.Command, t target, f *knockFlags) (*plan, error) {
	if f.ipv4 && f.ipv6 || f.both && (f.ipv4 || f.ipv6) {
		return nil, usagef("-4, -6 and --both exclude each other")
	}
	if f.quiet && f.verbose {
		return nil, usagef("-q and -v exclude each other")
	}
	byFlags := f.profile == "" && (len(f.secretFlags.given(cmd)) > 0 || len(f.steps) > 0 || f.sequenceFile != "")
	profile := &knockclient.Profile{Client: t.user}
	method, err := knockcore.ParseMethod(f.method)
	if err != nil && f.method != "" || f.method != "" && !knockclient.IsDatagram(method) {
		return nil, usagef("%q is no method of knocking by datagram; expect %s", f.method, datagramMethods)
	}
	if f.client != "" {
		profile.Client = f.client
	}
	if !byFlags || method == knockcore.MethodNone || knockclient.UsesSecret(method) {
		if profile, err = a.findProfile(t, &f.authFlags, byFlags); err != nil {
			return nil, err
		}
	}
	knock := knockclient.ProfileKnock{NoFrame: byFlags || profile.Secret.IsZero()}
	assumed := profile.Knock == nil && method == knockcore.MethodNone && !byFlags
	if profile.Knock != nil {
		knock = *profile.Knock
	}
	profile.Knock = &knock
	if method != knockcore.MethodNone && method != knock.Method {
		if !knockclient.UsesSecret(method) || !knockclient.UsesSecret(knock.Method) {
			knock.Secret, knock.HMACSecret = knockcore.Secret{}, knockcore.Secret{} // those of the other method
		}
		knock.Method = method
	}
	if err := a.knockSecrets(cmd, f, profile); err != nil {
		return nil, err
	}
	if err := f.overrideKnock(cmd, profile); err != nil {
		return nil, err
	}
	p := &plan{flags: f, named: !byFlags, assumed: assumed, host: t.host}
	if p.host == "" {
		p.host = profile.Server
	}
	if p.host == "" {
		return nil, usagef("neither the command line nor the profile says which host; give HOST")
	}
	p.dialer = knockclient.Dialer{Base: &net.Dialer{Timeout: profile.ConnectTimeout}, Config: profile.Config(), Opening: profile.Opening()}
	if cmd.Flags().Changed("slot") {
		p.dialer.Opening.Knock.Slot = f.slot
	}
	p.network = "tcp"
	sender := &p.dialer.Opening.Sender
	sender.BothFamilies = f.both
	switch {
	case f.ipv4:
		sender.Network, p.network = "udp4", "tcp4"
	case f.ipv6:
		sender.Network, p.network = "udp6", "tcp6"
	}
	port := t.port
	if port == "" && profile.Port != 0 {
		port = strconv.Itoa(int(profile.Port))
	}
	if port != "" {
		p.address = net.JoinHostPort(p.host, port)
	}
	return p, p.protect(t.port, port, profile)
}

// protect finds the ports to knock for, unless the profile's knock says so.
func (p *plan) protect(given, port string, profile *knockclient.Profile) error {
	switch {
	case given == "" && len(profile.Knock.Ports) > 0:
		p.ports = profile.Knock.Ports
	case profile.ProtectedPort != 0:
		p.ports = []knockcore.PortRange{{Protocol: knockcore.TCP, Low: profile.ProtectedPort, High: profile.ProtectedPort}}
	case port != "":
		r, err := parseKnockPort(port)
		if err != nil {
			return err
		}
		p.ports = []knockcore.PortRange{r}
	}
	return nil
}

// knockSecrets reads the secrets that the flags give, in the method's way.
func (a *app) knockSecrets(cmd *cobra.Command, f *knockFlags, profile *knockclient.Profile) error {
	knock := profile.Knock
	f.secretFlags.parse = func(text string) (knockcore.Secret, error) { return knockclient.ParseKnockSecret(knock.Method, text) }
	f.hmac.parse, f.hmac.anyMode = f.secretFlags.parse, f.anyMode
	secret, err := a.secret(cmd, &f.secretFlags)
	if err != nil {
		return err
	}
	hmac, err := a.secret(cmd, &f.hmac)
	if err != nil {
		return err
	}
	if !hmac.IsZero() {
		knock.HMACSecret = hmac
	}
	switch {
	case secret.IsZero():
	case knock.Method == knockcore.MethodNone || knockclient.UsesSecret(knock.Method):
		profile.Secret, knock.Secret = secret, knockcore.Secret{}
	default:
		knock.Secret = secret
	}
	return nil
}

// parseKnockPort reads a port to knock for: 22, ssh, tcp/22, udp/domain.
func parseKnockPort(text string) (knockcore.PortRange, error) {
	r := knockcore.PortRange{Protocol: knockcore.TCP}
	proto, name, found := strings.Cut(text, "/")
	if !found {
		proto, name = "tcp", text
	}
	if proto == "udp" {
		r.Protocol = knockcore.UDP
	}
	port, err := net.LookupPort(proto, name)
	if err != nil || port == 0 || !slices.Contains([]string{"tcp", "udp"}, proto) {
		return r, usagef("%q is not a port to knock for; expect a number, the name of a service, or either behind tcp/ or udp/", text)
	}
	r.Low, r.High = uint16(port), uint16(port)
	return r, nil
}
