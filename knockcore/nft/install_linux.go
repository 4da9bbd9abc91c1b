// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// installTries bounds how often an installation starts over because others
// change the rule set at the same time.
const installTries = 50

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
	if g.stands() {
		return 0, nil
	}
	bridged := false
	for range installTries {
		var st *state
		genID, err := g.k.steady(func() (err error) { st, err = g.k.readState(g.name); return err })
		if err != nil {
			return 0, fmt.Errorf("reading table %s: %w", g.name, err)
		}
		if err := g.mayChange(st); err != nil {
			return 0, err
		}
		if !bridged {
			wrote, err := g.bridge(st, genID)
			if err != nil && !errors.Is(err, unix.ERESTART) {
				return 0, fmt.Errorf("changing table %s: %w", g.name, err)
			}
			if bridged = err == nil; wrote || !bridged {
				continue
			}
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

// bridge puts rules without a map before those of a standing table that are about to be
// replaced. A packet that is on its way through the rules while they are replaced meets
// a verdict map whose elements have just been taken out; these rules have nothing that
// could be, and lead where the map led.
func (g *gate) bridge(st *state, genID uint32) (wrote bool, err error) {
	if st.chains[portsChain] == nil || st.handle != g.handle && g.handle != 0 {
		return false, nil
	}
	rs := g.rs // what stands; what another process left is most likely the same as ours
	if rs == nil {
		if rs, err = build(g.cfg, g.services, nil); err != nil {
			return false, err
		}
	}
	var bridges []rule
	for _, t := range rs.portTargets() {
		if st.chains[t.chain] != nil {
			bridges = append(bridges, rule{when: []match{matchPorts{knockcore.PortRange{Protocol: t.proto, Low: t.port, High: t.port}}}, then: to(t.chain)})
		}
	}
	if len(bridges) == 0 {
		return false, nil
	}
	err = g.k.commit(genID, func(c *nftables.Conn) error {
		enc := encoder{c, g.table()}
		for _, r := range bridges {
			out, err := enc.encode(&nftables.Chain{Table: g.table(), Name: portsChain}, r)
			if err != nil {
				return err
			}
			c.InsertRule(out)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	time.Sleep(bridging)
	return true, nil
}

// bridging is how long packets have for leaving the rules that they are in.
const bridging = 5 * time.Millisecond

// stands reports whether the table is what it should be already. Then nothing must be
// written, see bridge.
func (g *gate) stands() bool {
	if g.rs == nil {
		return false
	}
	rs, err := build(g.cfg, g.services, slices.Collect(maps.Keys(g.groups)))
	if err != nil || !reflect.DeepEqual(rs, g.rs) {
		return false
	}
	reason, err := g.verify()
	return err == nil && reason == ""
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
	handle, anew, rescued := st.handle, false, false
	switch {
	case st.table == nil:
	case g.handle != 0 && g.handle != st.handle:
		anew = true // made by others: what it has of windows is no news
	case (st.table.Flags^g.flags())&^nftables.TableFlagDormant != 0:
		anew, rescued = true, true // ownership cannot be changed in place
		if err := g.rescue(st); err != nil {
			return 0, err
		}
	}
	if anew {
		st = &state{}
	}
	var made map[string]bool
	var rules map[string][]*nftables.Rule
	err = g.k.commit(genID, func(c *nftables.Conn) (err error) {
		if anew {
			c.DelTable(g.table())
		}
		if made, rules, err = rs.add(c, st, g.table(), g.flags()); err != nil {
			return err
		}
		if err := markOwner(c, g.table(), g.self); err != nil {
			return err
		}
		if err := g.addKept(c, g.table()); err != nil {
			return err
		}
		if rescued {
			return g.addElements(c, g.lost(made))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if st.table == nil {
		handle, err = g.k.tableHandle(nftables.TableFamilyINet, g.name)
		if isAbsent(err) {
			handle = math.MaxUint64 // gone again: no table has this one
		} else if err != nil {
			return 0, err
		}
	}
	g.rs, g.handle, g.handles, g.verified = rs, handle, map[string][]uint64{}, 0
	for chain, list := range rules {
		for _, r := range list {
			g.handles[chain] = append(g.handles[chain], r.Handle)
		}
	}
	g.forget()
	if rescued {
		return len(g.live), nil
	}
	// Closing came first: elements take the kernel a while.
	maps.Copy(g.missing, g.lost(made))
	restored = len(g.missing)
	return restored, g.restore()
}

// lost are the live windows whose sets were just made.
func (g *gate) lost(made map[string]bool) map[key]time.Time {
	windows := map[key]time.Time{}
	now := time.Now()
	for grp, keys := range bySet(g.live) {
		if !made[grp.setName()] {
			continue
		}
		for _, k := range keys {
			if !isOver(g.live[k], now) {
				windows[k] = g.live[k]
			}
		}
	}
	return windows
}

// restore puts the missing windows back.
func (g *gate) restore() error {
	part := map[key]time.Time{}
	for len(g.missing) > 0 {
		clear(part)
		now := time.Now()
		for k, expires := range g.missing {
			if isOver(expires, now) {
				delete(g.missing, k)
				continue
			}
			if part[k] = expires; len(part) == maxCommit {
				break
			}
		}
		if err := g.send(part); err != nil {
			return fmt.Errorf("putting windows back: %w", err)
		}
	}
	return nil
}

func (g *gate) verify() (string, error) {
	if g.rs == nil {
		return "", ErrStopped
	}
	if len(g.missing) > 0 {
		return "windows are missing", nil
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
	reason := g.rs.differs(st, g.handle, g.flags(), g.handles, have)
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
