// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// DefaultTable is the name of our table where the configuration has none.
const DefaultTable = "caddy_knock"

// DefaultCheckInterval is how often the engine looks whether its table stands,
// besides listening for changes.
const DefaultCheckInterval = 5 * time.Second

// Hook is where the gate stands.
type Hook string

// The hooks.
const (
	// HookPrerouting gates ports of the host and ports that it forwards by
	// destination NAT, such as those published by Docker.
	HookPrerouting Hook = "prerouting"
	// HookInput gates ports of the host only: published ports stay open.
	HookInput Hook = "input"
)

// priority is that of the base chain: after conntrack, before destination NAT.
const priority = -110

// Config is how the engine gates.
type Config struct {
	// Table is the name of our table of family inet; "" means DefaultTable.
	Table string
	// Hook is where the gate stands; "" means HookPrerouting.
	Hook Hook
	// Allow lists whom the gate does not concern.
	Allow []netip.Prefix
	// Interfaces are the names of the devices whose incoming traffic is gated; a
	// trailing * stands for any ending. Empty means all but loopback.
	Interfaces []string
	// Reject lists the services that refuse strangers like a closed port of the
	// host does (TCP reset, ICMP port unreachable) where others drop.
	Reject []string
	// RejectAll makes every service refuse.
	RejectAll bool
	// Sets, if not empty, are sets of the operator's: the engine then only adds
	// and removes elements there and has no table and no rule of its own. A set
	// holds ipv4_addr or ipv6_addr and has flag timeout.
	Sets []SetRef
	// Log, if not empty, makes the table one that hands packets to readers of NFLOG
	// and does nothing else: Setup takes no services, and packets are seen whatever
	// is decided about them later, by the gate or by others.
	Log []LogRule
	// Bans, if set, keeps banned prefixes out of ports, besides what the gate closes.
	Bans *BanRules
	// Protect makes the kernel refuse changes of our table by others while we
	// live, so that even `nft flush ruleset` leaves no gap (Linux 6.9 and later;
	// elsewhere Setup fails). An operator then cannot change the table by hand
	// without stopping us first.
	Protect bool
	// CheckInterval is how often the engine looks whether its table stands; 0
	// means DefaultCheckInterval.
	CheckInterval time.Duration
	// OnHeal, if set, is told of every repair. It must not block, nor call the
	// engine.
	OnHeal func(Heal)
	// NetNS is a file descriptor of the network namespace to work in; 0 means
	// that of the calling thread.
	NetNS int
}

// SetRef names a set of the operator's.
type SetRef struct {
	// Family is the family of the table: inet, ip or ip6; "" means inet.
	Family string
	// Table and Set are the names.
	Table, Set string
}

// String writes the reference as ParseSetRef reads it.
func (r SetRef) String() string { return r.family() + " " + r.Table + " " + r.Set }

func (r SetRef) family() string {
	if r.Family == "" {
		return "inet"
	}
	return r.Family
}

// ParseSetRef reads "inet filter trusted" or "filter trusted".
func ParseSetRef(s string) (SetRef, error) {
	switch f := strings.Fields(s); len(f) {
	case 2:
		return SetRef{Table: f[0], Set: f[1]}, nil
	case 3:
		r := SetRef{Family: f[0], Table: f[1], Set: f[2]}
		return r, r.validate()
	default:
		return SetRef{}, fmt.Errorf("set %q: expect [FAMILY] TABLE SET, such as inet filter trusted", s)
	}
}

func (r SetRef) validate() error {
	switch r.family() {
	case "inet", "ip", "ip6":
	default:
		return fmt.Errorf("set %s: unknown family %q; expect inet, ip or ip6", r, r.Family)
	}
	if err := validateName("table", r.Table); err != nil {
		return err
	}
	return validateName("set", r.Set)
}

// Heal is a repair of what others broke.
type Heal struct {
	// Reason says what was found.
	Reason string
	// Windows is how many windows were put back.
	Windows int
	// Took is how long the repair took, from noticing to standing.
	Took time.Duration
	// Err is why the repair failed; it is tried again, and told again when the
	// reason is another.
	Err error
}

// Counts are the packets that the rules of a service decided on.
type Counts struct {
	// Opened counts the packets that a window let in. Where established flows
	// drain these are the first packets of connections.
	Opened uint64
	// Shut counts the packets that were dropped or rejected.
	Shut uint64
}

func (c Config) table() string {
	if c.Table == "" {
		return DefaultTable
	}
	return c.Table
}

func (c Config) hook() Hook {
	if c.Hook == "" {
		return HookPrerouting
	}
	return c.Hook
}

func (c Config) checkInterval() time.Duration {
	if c.CheckInterval <= 0 {
		return DefaultCheckInterval
	}
	return c.CheckInterval
}

// Validate reports the first thing wrong with the configuration.
func (c Config) Validate() error {
	if err := validateName("table", c.table()); err != nil {
		return err
	}
	if h := c.hook(); h != HookPrerouting && h != HookInput {
		return fmt.Errorf("unknown hook %q; expect prerouting or input", c.Hook)
	}
	for _, p := range c.Allow {
		if !p.IsValid() {
			return errors.New("an allowed prefix is not valid")
		}
	}
	for _, name := range c.Interfaces {
		if err := ValidateInterface(name); err != nil {
			return err
		}
	}
	for _, r := range c.Sets {
		if err := r.validate(); err != nil {
			return err
		}
	}
	if len(c.Log) > 0 && len(c.Sets) > 0 {
		return errors.New("sets of the operator's do not log")
	}
	if c.Bans != nil && (len(c.Log) > 0 || len(c.Sets) > 0) {
		return errors.New("it has no rules of its own; leave out set")
	}
	if err := c.Bans.validate(); err != nil {
		return err
	}
	for _, r := range c.Log {
		if err := r.validate(); err != nil {
			return err
		}
	}
	return nil
}

// Warnings are what the operator should know about the configuration.
func (c Config) Warnings() []string {
	if len(c.Sets) > 0 {
		return []string{"windows go to sets of yours: whether anything is closed depends on your rules alone"}
	}
	if c.hook() == HookInput {
		return []string{"hook input cannot gate ports that the host forwards by destination NAT, such as those published by Docker: they stay open to everybody; use hook prerouting"}
	}
	return nil
}

// ValidateInterface checks the name of a device, which may end in * for any ending.
func ValidateInterface(name string) error {
	if stem := strings.TrimSuffix(name, "*"); stem == "" || len(stem) > 15 || strings.ContainsAny(stem, "*\" \t\n\\") {
		return fmt.Errorf("interface %q: expect the name of a device, perhaps with a trailing *", name)
	}
	return nil
}

// validateName checks a name that nft can read back.
func validateName(what, name string) error {
	ok := name != "" && len(name) <= 128
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		ok = ok && (letter || i > 0 && ('0' <= r && r <= '9' || strings.ContainsRune("_-./", r)))
	}
	if !ok {
		return fmt.Errorf("%s %q: expect a letter, then letters, digits, and any of _ - . /", what, name)
	}
	return nil
}

// identity is what an engine keeps for its life.
func (c Config) identity() string {
	id := fmt.Sprintf("%d %s", c.NetNS, c.table())
	for _, r := range c.Sets {
		id += ", " + r.String()
	}
	return id
}
