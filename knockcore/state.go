// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// DefaultMaxGrants bounds the live grants of a State.
const DefaultMaxGrants = 1 << 20

// State is what outlives a configuration: live grants, spent nonces, admitted
// streams. Several gatekeepers may use it, one after the other or, during a
// reload, at the same time.
type State struct {
	Store Store
	Table *Table

	shared  Shared // the Store, if several nodes share it
	reg     *registry
	streams streams
	seed    maphash.Seed
	// active are the gatekeepers of the configurations that have started and not
	// stopped: one, or two during a reload. A grant has to please one of them.
	activeMu sync.Mutex
	active   []*Gatekeeper
	// telling is held for reading while the fleet tells something: a gatekeeper that
	// has lost its word is not used by then.
	telling sync.RWMutex
	// locks order the changes of one window: what the firewall is told last is
	// what the grants say last.
	locks [64]sync.Mutex
}

// NewState makes a state over a store. maxGrants bounds the live grants; 0
// means DefaultMaxGrants.
func NewState(store Store, maxGrants int) *State {
	if maxGrants <= 0 {
		maxGrants = DefaultMaxGrants
	}
	table := NewTable()
	shared, _ := store.(Shared)
	return &State{Store: store, Table: table, shared: shared, reg: newRegistry(table, maxGrants), seed: maphash.MakeSeed()}
}

// lock locks the target; the caller unlocks what it gets.
func (s *State) lock(t target) *sync.Mutex {
	m := &s.locks[maphash.Comparable(s.seed, t)%uint64(len(s.locks))]
	m.Lock()
	return m
}

// enter makes a grant live: in the registry, the firewall and the store. If the
// firewall fails, everything is as before. former is the equal one that it took
// the place of, nil if there was none.
func (s *State) enter(ctx context.Context, g *Grant, fw Firewall, most bounds) (former *Grant, err error) {
	defer s.lock(g.target()).Unlock()
	if former, err = s.place(ctx, g, fw, most); err != nil {
		return nil, err
	}
	// A grant that can't be kept stands: the owner is not locked out by a full
	// disk. The store reports its own health.
	_ = s.Store.SaveGrant(ctx, g)
	return former, nil
}

// place is enter without the store. The caller holds the target's lock.
func (s *State) place(ctx context.Context, g *Grant, fw Firewall, most bounds) (former *Grant, err error) {
	former, err = s.reg.put(g, most)
	if err != nil {
		return nil, err
	}
	if fw != nil {
		if err := s.window(ctx, g.target(), g.Client, fw); err != nil {
			if former != nil {
				_, _ = s.reg.put(former, bounds{})
			} else {
				s.reg.remove(g.ID)
			}
			return nil, fmt.Errorf("%w: %w", ReasonFirewallError, err)
		}
	}
	return former, nil
}

// window makes the firewall's window what the live grants want. The caller
// holds the target's lock.
func (s *State) window(ctx context.Context, t target, client string, fw Firewall) error {
	w := Window{Prefix: t.prefix, Service: t.service, Expires: s.reg.windowEnd(t), Client: client}
	if w.Expires.IsZero() {
		return fw.Close(ctx, w)
	}
	return fw.Open(ctx, w)
}

// Grants lists the live grants that f accepts (nil: all), in no order, those of
// admitted streams included. The grants must not be changed, and f must not keep
// what it is given.
func (s *State) Grants(f func(*Grant) bool) []*Grant {
	return append(s.reg.list(f), s.streams.list(f)...)
}

// Each calls f with every live grant, in no order, those of admitted streams
// included. f must not keep what it is given.
func (s *State) Each(f func(*Grant)) {
	s.Grants(func(g *Grant) bool { f(g); return false })
}

// Page returns the live grants that f accepts (nil: all) with IDs greater than
// after, in the order of their IDs, at most limit of them. more says that there
// are others behind the last one.
func (s *State) Page(f func(*Grant) bool, after GrantID, limit int) (page []*Grant, more bool) {
	byID := func(a, b *Grant) int { return bytes.Compare(a.ID[:], b.ID[:]) }
	cut := func() {
		slices.SortFunc(page, byID)
		if len(page) > limit {
			page, more = page[:limit], true
		}
	}
	s.Each(func(g *Grant) {
		if bytes.Compare(g.ID[:], after[:]) <= 0 || more && byID(g, page[limit-1]) > 0 || f != nil && !f(g) {
			return
		}
		kept := *g
		if page = append(page, &kept); len(page) > 2*limit { // keep the smallest, now and then
			cut()
		}
	})
	cut()
	return page, more
}

// Len is the number of live grants, those of admitted streams included.
func (s *State) Len() int { return s.reg.len() + s.streams.len() }

// Holds reports whether somebody at remote is in: a live grant for the service
// covers the address, or it is the other end of an admitted stream.
func (s *State) Holds(service string, remote netip.AddrPort) bool {
	addr := plain(remote.Addr())
	return s.reg.holds(service, addr, s.Table.Now()) || s.streams.has(service, netip.AddrPortFrom(addr, remote.Port()))
}

// Revoke ends a grant before its time, with its window if nobody else holds it,
// and the stream that it admitted. It reports whether there was such a grant; a
// firewall that can't close the window is an error.
func (g *Gatekeeper) Revoke(ctx context.Context, id GrantID, by string) (bool, error) {
	return g.revoke(ctx, id, by, "")
}

func (g *Gatekeeper) revoke(ctx context.Context, id GrantID, by, node string) (bool, error) {
	grant := g.state.reg.remove(id)
	if grant == nil {
		if grant = g.state.streams.cut(id); grant == nil {
			return false, nil
		}
		g.cfg.Observer.tell(Event{Kind: EventRevoked, Method: grant.Method, Source: grant.Source, Grant: grant, By: by, Node: node})
		return true, nil
	}
	err := g.finish(ctx, grant)
	g.cfg.Observer.tell(Event{Kind: EventRevoked, Method: grant.Method, Source: grant.Source, Grant: grant, By: by, Node: node})
	return true, err
}

// finish closes what a removed grant kept open, and forgets it.
func (g *Gatekeeper) finish(ctx context.Context, grant *Grant) error {
	defer g.state.lock(grant.target()).Unlock()
	// The window first: a store may wait for a network.
	err := g.shut(ctx, grant)
	if storeErr := g.state.Store.DeleteGrant(ctx, grant.ID); storeErr != nil && err == nil {
		err = fmt.Errorf("%w: %w", ReasonStoreError, storeErr)
	}
	return err
}

// shut closes what a removed grant kept open. The caller holds the target's lock.
func (g *Gatekeeper) shut(ctx context.Context, grant *Grant) (err error) {
	if fw := g.firewall(grant.Service); fw != nil {
		if fwErr := g.state.window(ctx, grant.target(), grant.Client, fw); fwErr != nil {
			err = fmt.Errorf("%w: %w", ReasonFirewallError, fwErr)
		}
	}
	if s := g.services[grant.Service]; s != nil && s.CutOnExpire && g.cfg.Cutter != nil {
		g.cfg.Cutter.Cut(grant.Prefix, s)
	}
	return err
}

// Sweep ends the grants that are over and returns how long until the next one
// may be, at most an hour.
func (g *Gatekeeper) Sweep(ctx context.Context) time.Duration {
	table := g.state.Table
	for _, grant := range g.state.reg.expired(table.Now()) {
		// A firewall with kernel timeouts has closed by itself, and a shared store
		// has forgotten it by itself: another node may have renewed it by now.
		if g.state.shared == nil {
			_ = g.finish(ctx, grant)
		} else {
			locked := g.state.lock(grant.target())
			_ = g.shut(ctx, grant)
			locked.Unlock()
		}
		g.cfg.Observer.tell(Event{Kind: EventExpired, Method: grant.Method, Source: grant.Source, Grant: grant})
	}
	wait := time.Hour
	if at, ok := g.state.reg.next(); ok {
		wait = min(wait, max(time.Millisecond, time.Duration(at-table.Now())))
	}
	return wait
}

// SetKeyring replaces the clients. Grants that the new clients could not have
// are revoked and their streams cut; the number of those is returned.
func (g *Gatekeeper) SetKeyring(ctx context.Context, k *Keyring) (revoked int, err error) {
	if err := g.check(k); err != nil {
		return 0, err
	}
	g.keyring.Store(k)
	return g.prune(ctx), nil
}

// Activate makes g one of the gatekeepers whose word counts. While there is
// another one, of the configuration before, nothing is revoked: the reload may
// still fail. Otherwise grants that g does not allow are revoked and their streams
// cut.
func (g *Gatekeeper) Activate(ctx context.Context) {
	g.state.activeMu.Lock()
	g.state.active = append(g.state.active, g)
	alone := len(g.state.active) == 1
	g.state.activeMu.Unlock()
	if alone {
		g.prune(ctx)
	}
	g.state.follow()
}

// Deactivate takes g's word away, if it had one. Grants that nobody allows any
// more are revoked and their streams cut: those of clients that a reload removed,
// or those that a failed reload would have allowed.
func (g *Gatekeeper) Deactivate(ctx context.Context) {
	g.state.activeMu.Lock()
	before := len(g.state.active)
	g.state.active = slices.DeleteFunc(g.state.active, func(other *Gatekeeper) bool { return other == g })
	var rest *Gatekeeper
	if n := len(g.state.active); n > 0 && n < before {
		rest = g.state.active[n-1]
	}
	g.state.activeMu.Unlock()
	g.state.awaitTellers()
	if rest != nil {
		rest.prune(ctx)
	}
}

// mayStand reports whether the grant's client and service still exist and the
// one may reach the other.
func (g *Gatekeeper) mayStand(grant *Grant) bool {
	c := g.Keyring().Client(grant.Client)
	return c != nil && g.services[grant.Service] != nil && c.MayReach(grant.Service)
}

// allowed reports whether one of the active gatekeepers allows the grant, or
// there is none. It is called after a grant became visible to prune: whichever of
// the two comes second sees the other.
func (s *State) allowed(grant *Grant) bool {
	s.activeMu.Lock()
	defer s.activeMu.Unlock()
	for _, g := range s.active {
		if g.mayStand(grant) {
			return true
		}
	}
	return len(s.active) == 0
}

func (g *Gatekeeper) prune(ctx context.Context) (revoked int) {
	for _, grant := range g.state.Grants(func(grant *Grant) bool { return !g.state.allowed(grant) }) {
		if ok, _ := g.Revoke(ctx, grant.ID, "client or service removed"); ok {
			revoked++
		}
	}
	return revoked
}

// Restore makes the grants live that the store kept from a former process, with
// their windows. Grants that could not be made now, or are over, are deleted. What
// a shared store keeps comes once the gatekeeper is active.
func (g *Gatekeeper) Restore(ctx context.Context) (restored int, err error) {
	if g.state.shared != nil {
		return 0, nil
	}
	grants, err := g.state.Store.Grants(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading kept grants: %w", err)
	}
	for _, grant := range grants {
		over := func() bool { return !grant.Expires.After(g.cfg.Now()) }
		if !g.mayStand(grant) || over() {
			_ = g.state.Store.DeleteGrant(ctx, grant.ID)
			continue
		}
		if _, err := g.state.enter(ctx, grant, g.firewall(grant.Service), bounds{}); err != nil {
			// Over meanwhile, so that no window opened; or beyond a limit that is lower now.
			if over() || ReasonOf(err) == ReasonLimited {
				_ = g.state.Store.DeleteGrant(ctx, grant.ID)
				continue
			}
			return restored, fmt.Errorf("restoring a grant of client %s for service %s: %w", grant.Client, grant.Service, err)
		}
		restored++
	}
	return restored, nil
}

// Reopen opens the windows of the live grants for these services, as after their
// firewall changed.
func (g *Gatekeeper) Reopen(ctx context.Context, services []string) error {
	var first error
	for _, grant := range g.state.reg.list(func(grant *Grant) bool { return slices.Contains(services, grant.Service) }) {
		fw := g.firewall(grant.Service)
		if fw == nil {
			continue
		}
		locked := g.state.lock(grant.target())
		err := g.state.window(ctx, grant.target(), grant.Client, fw)
		locked.Unlock()
		if err != nil && first == nil {
			first = fmt.Errorf("the window of client %s for service %s: %w", grant.Client, grant.Service, err)
		}
	}
	return first
}
