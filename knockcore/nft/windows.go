// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// key is what makes windows equal.
type key struct {
	service string
	prefix  netip.Prefix // masked, unmapped, without zone
}

// keyOf brings the window to its normal form.
func keyOf(w knockcore.Window) (key, error) {
	addr, bits := w.Prefix.Addr(), w.Prefix.Bits()
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	p := netip.PrefixFrom(addr.WithZone(""), bits).Masked()
	if !w.Prefix.IsValid() || !p.IsValid() {
		return key{}, fmt.Errorf("window for service %s: the prefix is not valid", w.Service)
	}
	return key{w.Service, p}, nil
}

// group is what the windows of one set have in common.
type group struct {
	service string
	v6      bool
	bits    int
}

func (k key) group() group { return group{k.service, k.prefix.Addr().Is6(), k.prefix.Bits()} }

// standard are the groups that every service has a set for. Sets for other
// lengths are made when the first such window opens.
func standard(service string) []group {
	return []group{{service, false, 32}, {service, true, 128}, {service, true, 64}}
}

func (g group) isStandard() bool {
	return !g.v6 && g.bits == 32 || g.v6 && (g.bits == 128 || g.bits == 64)
}

// exact reports whether the set holds single addresses.
func (g group) exact() bool { return g.bits == g.width() }

func (g group) width() int {
	if g.v6 {
		return 128
	}
	return 32
}

// setName names the set: ssh-4, ssh-6, ssh-6-64, ssh-4-24.
func (g group) setName() string {
	name := token(g.service) + "-4"
	if g.v6 {
		name = token(g.service) + "-6"
	}
	if !g.exact() {
		name += "-" + strconv.Itoa(g.bits)
	}
	return name
}

// groupOfSet reads what setName wrote; service is still the token.
func groupOfSet(name string) (g group, ok bool) {
	tok, rest, _ := strings.Cut(name, "-")
	family, bits, wide := strings.Cut(rest, "-")
	switch family {
	case "4":
		g = group{tok, false, 32}
	case "6":
		g = group{tok, true, 128}
	default:
		return g, false
	}
	if wide {
		n, err := strconv.Atoi(bits)
		if err != nil || n < 0 || n >= g.width() {
			return g, false
		}
		g.bits = n
	}
	return g, tok != ""
}

func compareGroups(a, b group) int {
	v6 := func(g group) int { return g.width() }
	return cmp.Or(strings.Compare(a.service, b.service), cmp.Compare(v6(a), v6(b)), cmp.Compare(b.bits, a.bits))
}

// maxToken is the longest service name that is used as it is.
const maxToken = 40

// token is the name of a service in the names of sets, chains and counters: the
// name itself if it has only letters, digits and underscores, else what is left
// of it and a hash.
func token(service string) string {
	if service == bannedService {
		return bannedToken
	}
	clean := strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, service)
	if first := clean[:min(1, len(clean))]; clean == service && len(clean) <= maxToken && strings.Trim(first, "0123456789") != "" {
		return clean
	}
	sum := sha256.Sum256([]byte(service))
	return "s_" + clean[:min(24, len(clean))] + "_" + hex.EncodeToString(sum[:4])
}

// forever is the end of windows that somebody else opened without one.
var forever = time.Unix(1<<40, 0)

// minTimeout is the shortest life that the kernel can be asked for.
const minTimeout = time.Millisecond

// timeoutUntil is the life of an element that ends at expires, in whole
// milliseconds, never more than what is left; 0 is for ever.
func timeoutUntil(now, expires time.Time) time.Duration {
	if expires.Equal(forever) {
		return 0
	}
	return max(minTimeout, expires.Sub(now).Truncate(time.Millisecond))
}
