// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"errors"
	"io/fs"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

const defaultConnectTimeout = 10 * time.Second

// authFlags are the flags of commands that authenticate.
type authFlags struct {
	secretFlags
	client, profile, method, hint string
	port                          uint16
	serverProof                   bool
	timeout, connectTimeout       time.Duration
	ipv4, ipv6                    bool
}

func (f *authFlags) add(cmd *cobra.Command, stdin bool) {
	fs := cmd.Flags()
	fs.StringVar(&f.profile, "profile", "", "use the profile `NAME`, whatever server it is for")
	fs.StringVar(&f.client, "client", "", "the client's `ID`, instead of CLIENT@")
	f.secretFlags.add(cmd, stdin)
	fs.BoolVar(&f.anyMode, insecureFileMode, false, "accept a secret file that others may read")
	f.addMethod(cmd)
	fs.DurationVar(&f.connectTimeout, "connect-timeout", defaultConnectTimeout, "how long connecting may take")
	fs.BoolVarP(&f.ipv4, "ipv4", "4", false, "use IPv4 only")
	fs.BoolVarP(&f.ipv6, "ipv6", "6", false, "use IPv6 only")
}

// addMethod adds the flags that say how to knock.
func (f *authFlags) addMethod(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.method, "method", "", "`method` of knocking: tcp-auth-envelope-v2 (the default) or tcp-auth-frame-v1")
	fs.StringVar(&f.hint, "hint", "", "the server's hint `mode`: route-hint (the default) or none")
	fs.Uint16Var(&f.port, "port", 0, "the protected `port`, if it is not the one that you connect to")
	fs.BoolVar(&f.serverProof, "server-proof", false, "wait until the server has proved that it knows the secret")
	fs.DurationVar(&f.timeout, "timeout", knockclient.DefaultTimeout, "how long authenticating may take")
}

// session is what authFlags, the target and a profile amount to.
type session struct {
	dialer  knockclient.Dialer
	network string
	address string
}

// resolve finds out where to connect to, as whom and how: from the flags, else
// from the profile.
func (a *app) resolve(cmd *cobra.Command, t target, f *authFlags) (*session, error) {
	if f.ipv4 && f.ipv6 {
		return nil, usagef("-4 and -6 exclude each other")
	}
	secret, err := a.secret(cmd, &f.secretFlags)
	if err != nil {
		return nil, err
	}
	profile, err := a.findProfile(t, f, !secret.IsZero())
	if err != nil {
		return nil, err
	}
	if !secret.IsZero() {
		profile.Secret = secret
	}
	if err := f.override(cmd, profile); err != nil {
		return nil, err
	}
	if err := profile.Validate(); err != nil {
		return nil, configError(err)
	}

	s := &session{network: "tcp"}
	switch {
	case f.ipv4:
		s.network = "tcp4"
	case f.ipv6:
		s.network = "tcp6"
	}
	host, port := t.host, t.port
	if host == "" {
		host = profile.Server
	}
	if port == "" && profile.Port != 0 {
		port = strconv.Itoa(int(profile.Port))
	}
	if host == "" || port == "" {
		return nil, usagef("neither the command line nor the profile says which host and port; give HOST:PORT")
	}
	s.address = net.JoinHostPort(host, port)
	s.dialer = knockclient.Dialer{Base: &net.Dialer{Timeout: profile.ConnectTimeout}, Config: profile.Config(), Opening: profile.Opening()}
	return s, nil
}

// findProfile finds the profile that the command line means. Who names client
// and secret needs none.
func (a *app) findProfile(t target, f *authFlags, secret bool) (*knockclient.Profile, error) {
	client := f.client
	if client == "" {
		client = t.user
	}
	if f.profile == "" && secret {
		if client == "" {
			return nil, usagef("no client is named; write CLIENT@HOST:PORT, or give --client")
		}
		return &knockclient.Profile{Client: client}, nil
	}
	profiles, err := knockclient.DefaultProfiles()
	if err != nil {
		return nil, configError(err)
	}
	if f.profile != "" {
		profile, err := profiles.Load(f.profile)
		if err != nil {
			return nil, a.profileError(err, f.profile)
		}
		if client != "" {
			profile.Client = client
		}
		return profile, nil
	}
	if client == "" && t.host == "" {
		return nil, usagef("nothing says where to connect to; give CLIENT@HOST:PORT, or --profile")
	}
	name, profile, err := profiles.Find(client, t.host)
	if err != nil {
		if name == "" {
			name = client
		}
		return nil, a.profileError(err, name)
	}
	return profile, nil
}

// profileError adds what to do about a profile that can't be used.
func (a *app) profileError(err error, name string) error {
	f := configError(err)
	var other *knockclient.OtherServerError
	switch {
	case errors.As(err, &other):
		f.hint = a.text("If that is another name of the same server, give --profile " + other.Name +
			".\nIf it is another server, make a profile for it: {cmd} profile add CLIENT@" + other.Host)
	case errors.Is(err, fs.ErrNotExist):
		if name == "" {
			name = "CLIENT"
		}
		f.hint = a.text("Make one with: {cmd} profile add " + name + " --server HOST:PORT\nOr give the client and one of --secret-file and --secret-env.")
	}
	return f
}

// override puts what the flags say in the place of what the profile says.
func (f *authFlags) override(cmd *cobra.Command, p *knockclient.Profile) (err error) {
	given := cmd.Flags().Changed
	if given("method") {
		if p.Method, err = knockcore.ParseMethod(f.method); err != nil {
			return usageError(err)
		}
		if !p.Method.IsFrame() {
			return usagef("%q is no method of TCP frames; expect %v or %v", f.method, knockcore.MethodEnvelopeV2, knockcore.MethodFrameV1)
		}
	}
	if given("hint") {
		if p.HintNone, err = knockclient.ParseHint(f.hint); err != nil {
			return usageError(err)
		}
	}
	return f.overrideStream(given, p)
}

// overrideStream is override for what all ways of knocking have in common: the stream
// that comes after.
func (f *authFlags) overrideStream(given func(name string) bool, p *knockclient.Profile) error {
	if given("port") {
		p.ProtectedPort = f.port
	}
	if given("server-proof") {
		p.ServerProof = f.serverProof
	}
	if given("timeout") {
		p.Timeout = f.timeout
	}
	if given("connect-timeout") || p.ConnectTimeout == 0 {
		p.ConnectTimeout = f.connectTimeout
	}
	if p.Timeout < 0 || p.ConnectTimeout < 0 {
		return usagef("timeouts can't be negative")
	}
	return nil
}
