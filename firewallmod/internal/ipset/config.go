// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package ipset opens windows as entries with a timeout in sets of ipset: in sets
// of its own, which the iptables gate lets in, or in sets of the operator's.
package ipset

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/firewallmod/internal/iptables"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Config is how windows open.
type Config struct {
	// Config is that of the gate. Its chain also names our sets.
	iptables.Config
	// Sets, if not empty, are sets of the operator's, one for each family at most:
	// the engine then only adds and removes entries there, and has no set and no
	// rule of its own. A set is hash:ip or hash:net and has timeouts.
	Sets []string
}

const (
	// maxSet is the longest name of a set.
	maxSet = 31
	// maxTimeout is the longest life that the kernel gives an entry, in seconds.
	maxTimeout = 2147483
	// maxEntries is how many entries a set of ours takes.
	maxEntries = 1 << 18
)

// ErrFull means that a set takes no more entries.
var ErrFull = errors.New("the set is full")

// ErrSet means that a set of the operator's is missing or can't hold windows.
var ErrSet = errors.New("the set can't hold windows")

// Validate reports the first thing wrong with the configuration.
func (c Config) Validate() error {
	if len(c.Sets) > 0 && (c.Variant != "" || c.Hook != "" || c.Chain != "" || len(c.Allow) > 0 || len(c.Reject) > 0 || c.RejectAll || c.LockWait != 0) {
		return errors.New("with `set` the rules are yours: variant, hook, chain, allow, reject and lock_wait have no meaning")
	}
	for _, name := range c.Sets {
		if name == "" || len(name) > maxSet || strings.ContainsAny(name, " \t\n") {
			return fmt.Errorf("set %q: expect the name of a set, 1 to %d characters", name, maxSet)
		}
	}
	return c.Config.Validate()
}

// Identity tells engines apart that can stand beside each other.
func (c Config) Identity() string { return c.Config.Identity() + " " + strings.Join(c.Sets, " ") }

// Accepts reports what of the services can't be done.
func (c Config) Accepts(services []*knockcore.Service) error {
	if len(c.Sets) == 0 {
		return c.Config.Accepts(services)
	}
	for _, s := range services {
		if s.CutOnExpire || len(s.Destinations) > 0 {
			return fmt.Errorf("service %s: on_expire cut and destinations need rules of ours; with `set` the rules are yours: %w", s.Name, engine.ErrUnsupported)
		}
	}
	return nil
}

// setPrefix begins the names of our sets. The table is in it, since gates at
// both hooks may have the same chain.
func (c Config) setPrefix() string {
	chain := c.Chain
	if chain == "" {
		chain = iptables.DefaultChain
	}
	if c.Hook == iptables.HookPrerouting {
		return chain + "-p"
	}
	return chain + "-i"
}

// setName names the set of a service: CADDY_KNOCK-i4-ssh.
func (c Config) setName(v6 bool, service string) string {
	name := c.setPrefix() + "4-"
	if v6 {
		name = c.setPrefix() + "6-"
	}
	return name + engine.Token(service, maxSet-len(name))
}

// owns reports whether a set of this name is ours.
func (c Config) owns(set string) bool {
	rest, ok := strings.CutPrefix(set, c.setPrefix())
	return ok && (strings.HasPrefix(rest, "4-") || strings.HasPrefix(rest, "6-"))
}

// timeout is the life of an entry that ends at expires.
func timeout(now, expires time.Time) uint32 {
	return uint32(min(maxTimeout, engine.SecondsUntil(now, expires)))
}

// farther reports whether the kernel's timeouts can't reach so far.
func farther(now, expires time.Time) bool {
	return engine.SecondsUntil(now, expires) > maxTimeout
}

// slack is how far a window that is listed may end from what was asked: entries
// have whole seconds of life.
const slack = 2 * time.Second

// differs reports whether what the kernel has is not what it should have.
func differs(now, listed, wanted time.Time) bool {
	if wanted.Sub(now) < slack {
		return false // about to end, or ended
	}
	if farther(now.Add(slack), wanted) {
		return listed.IsZero()
	}
	return listed.IsZero() || listed.Sub(wanted).Abs() > slack
}

func prefixOf(ip []byte, bits uint8, v6 bool) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	if !v6 {
		addr = addr.Unmap()
	}
	n := int(bits)
	if n == 0 {
		n = addr.BitLen()
	}
	p := netip.PrefixFrom(addr, n)
	return p.Masked(), ok && p.IsValid() && addr.Is6() == v6
}
