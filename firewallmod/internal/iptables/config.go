// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package iptables keeps services closed with rules of iptables and ip6tables, in
// chains of its own, and opens windows in them. [Gate] is the part that closes;
// package ipset uses it too.
//
// Rules are read with iptables-save and changed with iptables-restore, in one
// transaction for each family, so that no change is seen half made. (The library
// coreos/go-iptables runs one program for each rule and has no transactions.)
package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
)

// DefaultChain is the name of our base chain where the configuration has none;
// those of services begin with it.
const DefaultChain = "CADDY_KNOCK"

// DefaultLockWait is how long we wait for others that use iptables.
const DefaultLockWait = 3 * time.Second

// Variant is which of the two iptables is meant: they have the same commands, and
// rules in different parts of the kernel.
type Variant string

// The variants.
const (
	VariantAuto   Variant = "" // what the program iptables is
	VariantNFT    Variant = "nft"
	VariantLegacy Variant = "legacy"
)

// Hook is where the gate stands.
type Hook string

// The hooks.
const (
	// HookInput is chain INPUT of table filter: windows open also what later rules
	// there would drop; ports that the host forwards are out of its reach.
	HookInput Hook = "input"
	// HookPrerouting is chain PREROUTING of table mangle, before destination NAT: it
	// closes forwarded ports too, but what table filter drops stays dropped.
	HookPrerouting Hook = "prerouting"
)

// Config is how the gate stands.
type Config struct {
	// Variant is which iptables; refused if the rules of this host are in the other.
	Variant Variant
	// Hook is where the gate stands; "" means HookInput.
	Hook Hook
	// Chain is the name of our base chain; "" means DefaultChain.
	Chain string
	// Allow lists whom the gate does not concern.
	Allow []netip.Prefix
	// Reject lists the services that refuse strangers like a closed port of the
	// host does, where others drop. Not with HookPrerouting.
	Reject []string
	// RejectAll makes every service refuse.
	RejectAll bool
	// LockWait bounds the wait for the lock of iptables; 0 means DefaultLockWait.
	LockWait time.Duration
	// Options are those of the goroutine.
	engine.Options
}

// ErrForeign means that a chain of our name is not ours. It is left alone.
var ErrForeign = errors.New("the chain was not made by caddy-knock")

// ErrVariant means that the rules of this host are in the other iptables.
var ErrVariant = errors.New("the rules of this host are in the other iptables")

func (c Config) chain() string {
	if c.Chain == "" {
		return DefaultChain
	}
	return c.Chain
}

func (c Config) lockWait() time.Duration {
	if c.LockWait <= 0 {
		return DefaultLockWait
	}
	return c.LockWait
}

func (c Config) prerouting() bool { return c.Hook == HookPrerouting }

// place is the table and the chain from which we are called.
func (c Config) place() (table, chain string) {
	if c.prerouting() {
		return "mangle", "PREROUTING"
	}
	return "filter", "INPUT"
}

// Identity tells gates apart that can stand beside each other.
func (c Config) Identity() string {
	table, _ := c.place()
	return fmt.Sprintf("%d %s %s %s", c.NetNS, c.Variant, table, c.chain())
}

// Validate reports the first thing wrong with the configuration.
func (c Config) Validate() error {
	switch c.Variant {
	case VariantAuto, VariantNFT, VariantLegacy:
	default:
		return fmt.Errorf("unknown variant %q; expect nft or legacy", c.Variant)
	}
	switch c.Hook {
	case "", HookInput:
	case HookPrerouting:
		if c.RejectAll || len(c.Reject) > 0 {
			return errors.New("iptables can't reject at hook prerouting: remove `reject`, or use `hook input`")
		}
	default:
		return fmt.Errorf("unknown hook %q; expect input or prerouting", c.Hook)
	}
	name := c.chain()
	ok := len(name) <= 15
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		ok = ok && (letter || i > 0 && ('0' <= r && r <= '9' || strings.ContainsRune("_-", r)))
	}
	if !ok {
		return fmt.Errorf("chain %q: expect a letter, then letters, digits, _ and -, 15 at most", name)
	}
	for _, p := range c.Allow {
		if !p.IsValid() {
			return errors.New("an allowed prefix is not valid")
		}
	}
	if c.LockWait < 0 || c.LockWait > 0 && c.LockWait < time.Second || c.LockWait > 5*time.Second {
		return fmt.Errorf("lock_wait %v: expect 1s to 5s", c.LockWait)
	}
	return nil
}

// Accepts reports what of the services iptables can't do.
func (c Config) Accepts(services []*knockcore.Service) error {
	for _, s := range services {
		if s.CutOnExpire {
			return fmt.Errorf("service %s: on_expire cut: iptables can't end established flows; use drain, or firewall nftables: %w", s.Name, engine.ErrUnsupported)
		}
		if len(s.Destinations) > 0 && !c.prerouting() {
			return fmt.Errorf("service %s: destinations: hook input sees only what is for this host; use `hook prerouting`, or firewall nftables: %w", s.Name, engine.ErrUnsupported)
		}
	}
	return nil
}

// AcceptsPrefix reports whether a window may be for the prefix.
func AcceptsPrefix(p netip.Prefix) error {
	if p.Bits() == 0 {
		return fmt.Errorf("a window of %v would open to everybody: %w", p, engine.ErrUnsupported)
	}
	return nil
}
