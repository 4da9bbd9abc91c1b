// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// keeper keeps windows in the kernel. It is used by one goroutine.
type keeper interface {
	// install makes the kernel what it should be, whatever it is, and puts back
	// the windows that live. restored says how many.
	install(cfg Config, services []*knockcore.Service) (restored int, err error)
	// adopt takes over what is in the kernel as what should be.
	adopt() error
	// apply opens the windows, in one transaction; a zero time closes.
	apply(changes map[key]time.Time) error
	// verify says what is wrong, "" if nothing is.
	verify() (string, error)
	// forget drops from memory what is over.
	forget()
	list() ([]knockcore.Window, error)
	counts() (map[string]Counts, error)
	stop(mode knockcore.ExitMode) error
	close()

	// concerns reports whether changes of this table may matter. It and port may
	// be called from other goroutines.
	concerns(family byte, table string) bool
	// port is the netlink address that our own changes carry.
	port() uint32
}

// gate is the keeper of our own table.
type gate struct {
	k        kernel
	name     string // of the table, for good
	cfg      Config
	self     process
	claim    claim
	claimed  bool
	services []*knockcore.Service
	rs       *ruleset
	// live are the windows that should be open. Those that ran out are removed
	// now and then.
	live map[key]time.Time
	// missing are those of them that still have to be put back after a repair.
	missing map[key]time.Time
	// groups are those that have a set besides the standard ones.
	groups map[group]bool
	kept   map[connKey]bool
	// handle is the table's, handles are those of the rules as installed, by
	// chain.
	handle  uint64
	handles map[string][]uint64
	// verified is the generation of the rule set that verify last saw intact.
	verified uint32
}

func newGate(cfg Config) *gate {
	return &gate{
		k: kernel{netns: cfg.NetNS}, name: cfg.table(), self: self(),
		live: map[key]time.Time{}, missing: map[key]time.Time{}, groups: map[group]bool{}, kept: map[connKey]bool{},
	}
}

func (g *gate) table() *nftables.Table {
	return &nftables.Table{Name: g.name, Family: nftables.TableFamilyINet}
}

func (g *gate) flags() nftables.TableFlags {
	if g.cfg.Protect {
		return nftables.TableFlagOwner | nftables.TableFlagPersist
	}
	return 0
}

// isOver reports whether a window has ended.
func isOver(expires, now time.Time) bool { return !expires.After(now) }

func (g *gate) concerns(family byte, table string) bool {
	return family == unix.NFPROTO_INET && table == g.name
}

func (g *gate) port() uint32 { return g.k.port.Load() }

func (g *gate) close() {
	g.k.close()
	if g.claimed {
		claims.Delete(g.claim)
		g.claimed = false
	}
}
