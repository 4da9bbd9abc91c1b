// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// overrideKnock puts what the flags say in the place of what the profile says.
func (f *knockFlags) overrideKnock(cmd *cobra.Command, p *knockclient.Profile) (err error) {
	given, k := cmd.Flags().Changed, p.Knock
	if given("address") {
		if k.Address, err = f.knockAddress(cmd, p); err != nil {
			return err
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
	return f.overrideStream(given, p)
}

// knockAddress is the address to open for, the zero Addr for the one that the knock
// comes from.
func (f *knockFlags) knockAddress(cmd *cobra.Command, p *knockclient.Profile) (netip.Addr, error) {
	switch f.address {
	case "source":
		return netip.Addr{}, nil
	case "auto":
		if p.HTTP == nil {
			return netip.Addr{}, usagef("--address auto asks the knock page of the profile, and it has none; make one with caddy-knock join or caddy-knock http")
		}
		page := knockclient.HTTPKnock{URL: p.HTTP.URL}
		if f.ipv4 {
			page.Network = "tcp4"
		} else if f.ipv6 {
			page.Network = "tcp6"
		}
		addr, err := page.OwnAddress(cmd.Context())
		if err != nil {
			return addr, fmt.Errorf("asking %s for our address: %w", p.HTTP.URL, err)
		}
		return addr, nil
	default:
		addr, err := netip.ParseAddr(f.address)
		if err != nil {
			return addr, usagef("--address %q is neither an IP address nor source or auto", f.address)
		}
		return addr, nil
	}
}
