// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// overrideKnock puts what the flags say in the place of what the profile says.
func (f *knockFlags) overrideKnock(cmd *cobra.Command, p *knockclient.Profile) (err error) {
	given, k := cmd.Flags().Changed, p.Knock
	if given("address") {
		k.Address = netip.Addr{}
		if f.address != "source" {
			if k.Address, err = netip.ParseAddr(f.address); err != nil {
				return usagef("--address %q is neither an IP address nor source", f.address)
			}
		}
	}
	if given("source") {
		if k.Source, err = netip.ParseAddr(f.source); err != nil {
			return usagef("--source %q is not an IP address", f.source)
		}
	}
	if f.retry < 0 || f.retry >= knockclient.MaxCopies || f.delay < 0 {
		return usagef("--retry is 0 to %d, and --delay not negative", knockclient.MaxCopies-1)
	}
	if given("retry") {
		k.Copies = f.retry + 1
	}
	if given("delay") {
		if k.Interval = f.delay; f.delay == 0 {
			k.Interval = -1
		}
	}
	if given("knock-port") {
		k.Port = f.knockPort
	}
	if given("hmac") {
		k.HMAC = f.digest
	}
	if given("user") {
		k.User = f.user
	}
	if given("open-for") {
		k.OpenFor = f.openFor
	}
	if given("parts") {
		k.Parts = f.parts
	}
	if len(f.steps) > 0 || f.sequenceFile != "" {
		k.Steps, k.SequenceFile = f.steps, f.sequenceFile
	}
	if given("raw-syn") {
		k.RawSYN = f.rawSYN
	}
	if given("frame") {
		k.NoFrame = !f.frame
	}
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
