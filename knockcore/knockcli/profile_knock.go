// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// profileKnockFlags say which knock goes before the connections of a profile.
type profileKnockFlags struct {
	method, host, digest, user string
	secret, hmac               secretFlags
	ports                      []string
	port                       uint16
	parts                      int
	openFor                    time.Duration
	noFrame, noSession         bool
}

// profileKnockOptions are the names of the flags that only go with --knock.
var profileKnockOptions = []string{
	"knock-host", "knock-port", "knock-for", "knock-secret-file", "knock-secret-env", "hmac-secret-file", "hmac-secret-env", "hmac",
	"user", "open-for", "parts", "no-frame", "no-session",
}

func (f *profileKnockFlags) add(cmd *cobra.Command) {
	f.secret.prefix, f.hmac.prefix = "knock-", "hmac-"
	fs := cmd.Flags()
	fs.StringVar(&f.method, "knock", "", "knock by this `method` before each connection:\n"+strings.Replace(datagramMethods, "udp-passive,", "udp-passive,\n", 1))
	fs.StringVar(&f.host, "knock-host", "", "knock at this `HOST` (default: the server)")
	fs.Uint16Var(&f.port, "knock-port", 0, "the UDP `port` to knock at (default 62201; pyknock 60120)")
	fs.StringArrayVar(&f.ports, "knock-for", nil, "the `port` to knock for, as tcp/22; may be repeated\n(default: the one that you connect to)")
	fs.StringVar(&f.secret.file, "knock-secret-file", "", "read the key of pyknock or fwknop from `FILE`")
	fs.StringVar(&f.secret.env, "knock-secret-env", "", "read the key of pyknock or fwknop from the environment variable `NAME`")
	fs.StringVar(&f.hmac.file, "hmac-secret-file", "", "fwknop: read the HMAC key from `FILE`")
	fs.StringVar(&f.hmac.env, "hmac-secret-env", "", "fwknop: read the HMAC key from the environment variable `NAME`")
	fs.StringVar(&f.digest, "hmac", "", "fwknop: the `digest` of the HMAC (default sha256)")
	fs.StringVar(&f.user, "user", "", "fwknop: the `name` in the packet (default: the client)")
	fs.DurationVar(&f.openFor, "open-for", 0, "fwknop: ask to open for so long (default: the server's choice)")
	fs.IntVar(&f.parts, "parts", 0, "the `number` of parts of a sequence, 2 to 8 (default 3)")
	fs.BoolVar(&f.noFrame, "no-frame", false, "the knock alone opens: no frame in the connection")
	fs.BoolVar(&f.noSession, "no-session", false, "the frame does not carry the knock's session ID")
}

// apply puts what the flags say into the profile. Keys of pyknock and fwknop are
// none of frames: without another secret their profile has none.
func (f *profileKnockFlags) apply(a *app, cmd *cobra.Command, p *knockclient.Profile) error {
	if f.method == "" {
		for _, name := range profileKnockOptions {
			if cmd.Flags().Changed(name) {
				return usagef("--%s goes with --knock METHOD", name)
			}
		}
		return nil
	}
	k := &knockclient.ProfileKnock{
		Host: f.host, Port: f.port, User: f.user, OpenFor: f.openFor, Parts: f.parts, HMAC: f.digest,
		NoFrame: f.noFrame, NoSession: f.noSession,
	}
	var err error
	if k.Method, err = knockcore.ParseMethod(f.method); err != nil || !knockclient.IsDatagram(k.Method) {
		return usagef("%q is no method of knocking by datagram; expect %s", f.method, datagramMethods)
	}
	for _, text := range f.ports {
		r, err := parseKnockPort(text)
		if err != nil {
			return err
		}
		k.Ports = append(k.Ports, r)
	}
	f.secret.parse = func(text string) (knockcore.Secret, error) { return knockclient.ParseKnockSecret(k.Method, text) }
	f.hmac.parse = f.secret.parse
	if k.Secret, err = a.secret(cmd, &f.secret); err != nil {
		return err
	}
	if k.HMACSecret, err = a.secret(cmd, &f.hmac); err != nil {
		return err
	}
	for flag, path := range map[string]*string{f.secret.file: &k.SecretFile, f.hmac.file: &k.HMACSecretFile} {
		if flag == "" {
			continue
		}
		if *path, err = filepath.Abs(flag); err != nil {
			return configError(err)
		}
	}
	p.Knock = k
	return nil
}

// needsSecret reports whether the profile has a use for a libknock secret.
func needsSecret(p *knockclient.Profile) bool {
	return p.Knock == nil || !p.Knock.NoFrame || knockclient.UsesSecret(p.Knock.Method)
}
