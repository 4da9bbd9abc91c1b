// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"fmt"
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
	// groups are those that have a set besides the standard ones.
	groups map[group]bool
	kept   map[connKey]bool
	// handles are those of the rules as installed, by chain.
	handles map[string][]uint64
	// verified is the generation of the rule set that verify last saw intact.
	verified uint32
}

// installTries bounds how often an installation starts over because others
// change the rule set at the same time.
const installTries = 50

func newGate(cfg Config) *gate {
	return &gate{
		k: kernel{netns: cfg.NetNS}, name: cfg.table(), self: self(),
		live: map[key]time.Time{}, groups: map[group]bool{}, kept: map[connKey]bool{},
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

func (g *gate) install(cfg Config, services []*knockcore.Service) (restored int, err error) {
	if err := g.take(); err != nil {
		return 0, err
	}
	oldConfig, oldServices := g.cfg, g.services
	g.cfg, g.services = cfg, services
	defer func() {
		if err != nil { // the old table stands
			g.cfg, g.services = oldConfig, oldServices
		}
	}()
	for range installTries {
		var st *state
		genID, err := g.k.steady(func() (err error) { st, err = g.k.readState(g.name); return err })
		if err != nil {
			return 0, fmt.Errorf("reading table %s: %w", g.name, err)
		}
		if err := g.mayChange(st); err != nil {
			return 0, err
		}
		restored, err = g.write(st, genID)
		if errors.Is(err, unix.ERESTART) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("installing table %s: %w", g.name, err)
		}
		return restored, nil
	}
	return 0, fmt.Errorf("installing table %s: others change the rule set all the time", g.name)
}

// take makes sure that no other engine of this process keeps the table.
func (g *gate) take() error {
	if g.claimed {
		return nil
	}
	c, err := claimOf(g.k.netns, g.name)
	if err != nil {
		return err
	}
	if _, taken := claims.LoadOrStore(c, g); taken {
		return fmt.Errorf("table %s: %w in this process", g.name, ErrBusy)
	}
	g.claim, g.claimed = c, true
	return nil
}

// mayChange refuses tables that are not ours, or not ours alone.
func (g *gate) mayChange(st *state) error {
	if st.table == nil {
		return nil
	}
	name := g.name
	if !st.ours() {
		return fmt.Errorf("table inet %s: %w: choose another name, or remove it with `nft delete table inet %s`", name, ErrForeign, name)
	}
	owners, err := g.k.owners(st.table)
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("reading the owner of table %s: %w", name, err)
	}
	for _, p := range owners {
		if p != g.self && p.alive() {
			return fmt.Errorf("table inet %s: %w: process %d; give one of them another table", name, ErrBusy, p.pid)
		}
	}
	return nil
}

// write sends the table in one transaction.
func (g *gate) write(st *state, genID uint32) (restored int, err error) {
	for name := range st.sets { // what others left open stays open
		if grp, ok := g.knownGroup(name); ok && !grp.isStandard() {
			g.groups[grp] = true
		}
	}
	var groups []group
	for grp := range g.groups {
		groups = append(groups, grp)
	}
	rs, err := build(g.cfg, g.services, groups)
	if err != nil {
		return 0, err
	}
	if err := g.keepConnections(st); err != nil {
		return 0, err
	}
	anew := st.table != nil && (st.table.Flags^g.flags())&^nftables.TableFlagDormant != 0
	if anew { // ownership cannot be changed in place
		if err := g.rescue(st); err != nil {
			return 0, err
		}
		st = &state{}
	}
	var later map[key]time.Time
	var rules map[string][]*nftables.Rule
	err = g.k.commit(genID, func(c *nftables.Conn) error {
		if anew {
			c.DelTable(g.table())
		}
		table, made, added, err := rs.add(c, st, g.flags())
		if err != nil {
			return err
		}
		rules = added
		if err := markOwner(c, table, g.self); err != nil {
			return err
		}
		missing := map[key]time.Time{}
		now := time.Now()
		for k, expires := range g.live {
			if made[k.group().setName()] && !isOver(expires, now) {
				missing[k] = expires
			}
		}
		restored, later = len(missing), nil
		if !anew { // closing comes first: elements take the kernel a while
			missing, later = nil, missing
		}
		if err := g.addKept(c, table); err != nil {
			return err
		}
		return g.addElements(c, missing)
	})
	if err != nil {
		return 0, err
	}
	g.rs, g.handles, g.verified = rs, map[string][]uint64{}, 0
	for chain, list := range rules {
		for _, r := range list {
			g.handles[chain] = append(g.handles[chain], r.Handle)
		}
	}
	g.forget()
	return restored, g.apply(later)
}

// rescue takes over windows and connections from a table that will be replaced.
func (g *gate) rescue(st *state) error {
	for name := range st.sets {
		grp, ok := g.knownGroup(name)
		if !ok {
			continue
		}
		windows, err := g.listGroup(grp)
		if err != nil {
			return fmt.Errorf("reading set %s: %w", name, err)
		}
		for _, w := range windows {
			if k, err := keyOf(w); err == nil {
				g.live[k] = w.Expires
			}
		}
	}
	for _, spec := range []setSpec{keptSet(false), keptSet(true)} {
		if st.sets[spec.name] != nil {
			if err := g.readKept(spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// isOver reports whether a window has ended; those without an end never do.
func isOver(expires, now time.Time) bool { return !expires.IsZero() && !expires.After(now) }

// forget drops windows that ran out, and those of services that are gone.
func (g *gate) forget() {
	now := time.Now()
	names := map[string]bool{}
	for _, s := range g.services {
		names[s.Name] = true
	}
	for k, expires := range g.live {
		if !names[k.service] || isOver(expires, now) {
			delete(g.live, k)
		}
	}
	for grp := range g.groups {
		if !names[grp.service] {
			delete(g.groups, grp)
		}
	}
}

// knownGroup tells which windows a set of one of our services holds.
func (g *gate) knownGroup(set string) (group, bool) {
	grp, ok := groupOfSet(set)
	if !ok {
		return grp, false
	}
	for _, s := range g.services {
		if token(s.Name) == grp.service {
			grp.service = s.Name
			return grp, true
		}
	}
	return grp, false
}

func (g *gate) verify() (string, error) {
	if g.rs == nil {
		return "", ErrStopped
	}
	genID, err := g.k.generation()
	if err != nil || genID == g.verified {
		return "", err
	}
	var st *state
	var have map[string][]uint64
	genID, err = g.k.steady(func() (err error) {
		if st, err = g.k.readState(g.name); err != nil || st.table == nil {
			return err
		}
		have, err = g.k.ruleHandles(g.name)
		return ignoreAbsent(err)
	})
	if err != nil {
		return "", err
	}
	reason := g.rs.differs(st, g.flags(), g.handles, have)
	if reason == "" {
		g.verified = genID
	}
	return reason, nil
}

func (g *gate) stop(mode knockcore.ExitMode) error {
	if g.rs == nil {
		return nil
	}
	var st *state
	for range installTries {
		genID, err := g.k.steady(func() (err error) { st, err = g.k.readState(g.name); return err })
		if err != nil {
			return fmt.Errorf("reading table %s: %w", g.name, err)
		}
		if st.table == nil || !st.ours() {
			return nil
		}
		err = g.k.commit(genID, func(c *nftables.Conn) error {
			if mode == knockcore.ExitRemove {
				c.DelTable(g.table())
				return nil
			}
			if mode == knockcore.ExitClose {
				for name := range st.sets {
					if grp, ok := g.knownGroup(name); ok {
						c.FlushSet(&nftables.Set{Table: g.table(), Name: grp.setName()})
					}
				}
			}
			return markOwner(c, g.table(), process{})
		})
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return fmt.Errorf("leaving table %s: others change the rule set all the time", g.name)
}

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

// Remove takes the table away, if it is ours, and says whether there was one.
// Services are open afterwards. It needs no engine, and refuses while another
// process keeps the table.
func Remove(ctx context.Context, cfg Config) (bool, error) {
	if err := cfg.Validate(); err != nil {
		return false, err
	}
	g := newGate(cfg)
	g.cfg = cfg
	defer g.close()
	for range installTries {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		var st *state
		genID, err := g.k.steady(func() (err error) { st, err = g.k.readState(g.name); return err })
		if err != nil {
			return false, err
		}
		if st.table == nil {
			return false, nil
		}
		if err := g.mayChange(st); err != nil {
			return false, err
		}
		err = g.k.commit(genID, func(c *nftables.Conn) error { c.DelTable(st.table); return nil })
		if !errors.Is(err, unix.ERESTART) {
			return err == nil, err
		}
	}
	return false, errors.New("removing the table: others change the rule set all the time")
}
