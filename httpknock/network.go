// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"errors"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// The widest networks that somebody may knock for, as Knocker has them.
const (
	widestBits4 = 16
	widestBits6 = 64
)

var errNoNetwork = errors.New("neither an address nor a network")

// parseNetwork reads what a knock is for: an address, or one with a prefix length
// or, for IPv4, a netmask or hostmask behind it. Host bits are cleared. The result
// is normal as of knockcore.NormalPrefix. Zones are refused: what they mean is known
// only where they come from. (knocker-http.md section 7)
func parseNetwork(s string) (netip.Prefix, error) {
	host, mask, isNetwork := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, errNoNetwork
	}
	if !isNetwork {
		return knockcore.AddrPrefix(addr), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		length, ok := maskLength(mask)
		if !addr.Is4() || !ok {
			return netip.Prefix{}, errNoNetwork
		}
		p = netip.PrefixFrom(addr, length)
	}
	if p = knockcore.NormalPrefix(p); !p.IsValid() {
		return p, errNoNetwork
	}
	return p, nil
}

// maskLength is the prefix length of a netmask such as 255.255.255.0 or of a
// hostmask such as 0.0.0.255; what could be both is a netmask.
func maskLength(s string) (int, bool) {
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is4() {
		return 0, false
	}
	b := addr.As4()
	mask := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	if ones := bits.LeadingZeros32(^mask); mask == ^(^uint32(0) >> ones) {
		return ones, true
	}
	zeros := bits.LeadingZeros32(mask)
	return zeros, mask == ^uint32(0)>>zeros
}

// tooWide reports whether a network is wider than anybody may knock for.
func tooWide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < widestBits4
	}
	return p.Bits() < widestBits6
}
