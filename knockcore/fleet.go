// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Shared is a Store that several nodes, a fleet, use at once: what one of them
// keeps all of them learn. It ends grants by itself when they are over, so
// nobody deletes them for that.
type Shared interface {
	Store

	// Follow gives to the sink all that is kept and, from then on, what other
	// nodes change, in the order in which the fleet agreed on it: what was revoked
	// does not come back. It does not wait. There is one sink; a second call gives
	// the first one all that is kept once more.
	Follow(sink Sink)

	// Admits reports why nothing new may be admitted now; nil if it may. It does
	// not wait. Spend asks by itself.
	Admits() error

	// TakeUse uses up one connection of a session grant, for all nodes: of several
	// calls no more succeed than it has uses. g is the grant as it is at this node
	// afterwards; left is how many uses are left. ReasonNoSession means that there
	// was none left, or that the grant is gone.
	TakeUse(ctx context.Context, g *Grant) (left int, err error)

	// Order tells the other nodes to revoke what the selection matches there:
	// streams, which only the node knows that admitted them, and grants that this
	// node has not heard of yet.
	Order(ctx context.Context, sel Selection) error
}

// Sink takes in what other nodes did. Calls may come at the same time; who tells of one
// grant or prefix in two of them tells of it again afterwards.
type Sink interface {
	// Enter makes a grant live that another node made or renewed, without keeping
	// it again. To be told again of the same one is nothing. Neither side changes the
	// grant.
	Enter(g *Grant, node string)
	// Remove ends a grant that another node revoked.
	Remove(id GrantID, node string)
	// Revoke does what Order asked for.
	Revoke(sel Selection, node string)
	// Ban bans, in place of a ban of the same prefix.
	Ban(b Ban)
	// Lift forgets the ban of exactly this prefix.
	Lift(prefix netip.Prefix)
}

// Selection says which grants are meant: those that fit everything that is set.
// The zero value means all.
type Selection struct {
	ID      GrantID      `json:"id,omitzero"`
	Client  string       `json:"client,omitempty"`
	Service string       `json:"service,omitempty"`
	Method  Method       `json:"method,omitzero"`
	Prefix  netip.Prefix `json:"prefix,omitzero"` // any that overlaps
}

// All reports whether everything is selected.
func (s Selection) All() bool { return s == Selection{} }

// Match reports whether the grant is meant.
func (s Selection) Match(g *Grant) bool {
	return (s.ID == GrantID{} || s.ID == g.ID) && (s.Client == "" || s.Client == g.Client) &&
		(s.Service == "" || s.Service == g.Service) && (s.Method == MethodNone || s.Method == g.Method) &&
		(!s.Prefix.IsValid() || s.Prefix.Overlaps(g.Prefix))
}

// RevokeAll revokes what the selection matches, at all nodes if the store is
// shared. It returns how many grants were revoked here and elsewhere as far as
// this node knew them, and what went wrong.
func (g *Gatekeeper) RevokeAll(ctx context.Context, sel Selection, by string) (revoked int, errs []error) {
	for _, grant := range g.state.Grants(sel.Match) {
		ok, err := g.Revoke(ctx, grant.ID, by)
		if ok {
			revoked++
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if g.state.shared != nil {
		if err := g.state.shared.Order(ctx, sel); err != nil {
			errs = append(errs, fmt.Errorf("%w: telling the other nodes: %w", ReasonStoreError, err))
		}
	}
	return revoked, errs
}

// newID is the ID of a new grant of address scope. Nodes of a fleet give the grant
// of the same client, service and prefix the same one, so that they all mean one
// grant, as one node does; without a fleet, the registry draws one for a grant that
// is not there yet.
func (s *State) newID(client, service string, prefix netip.Prefix) GrantID {
	if s.shared == nil {
		return GrantID{}
	}
	b := append([]byte(client), 0)
	b = append(append(b, service...), 0)
	b, _ = prefix.AppendText(b)
	sum := sha256.Sum256(b)
	return GrantID(sum[:8])
}

// follow makes the state a part of the fleet, or, when it is already, has it told
// again what a new configuration may want to know.
func (s *State) follow() {
	if s.shared != nil {
		s.shared.Follow(fleet{s})
	}
}

// awaitTellers waits until what the fleet was telling is taken in.
func (s *State) awaitTellers() {
	s.telling.Lock()
	defer s.telling.Unlock()
}

// last is the last of the gatekeepers whose word counts and that allow the grant
// (nil: any); nil if there is none.
func (s *State) last(grant *Grant) *Gatekeeper {
	s.activeMu.Lock()
	defer s.activeMu.Unlock()
	for i := len(s.active) - 1; i >= 0; i-- {
		if grant == nil || s.active[i].mayStand(grant) {
			return s.active[i]
		}
	}
	return nil
}

// fleet is the Sink of a State.
type fleet struct{ *State }

// windowTimeout bounds what another node's change may cost at a firewall.
const windowTimeout = 10 * time.Second

// Enter implements Sink. A grant that this node's configuration does not allow is
// left alone: other nodes may have another one.
func (f fleet) Enter(told *Grant, node string) {
	f.telling.RLock()
	defer f.telling.RUnlock()
	own := *told // which may get the ID of an equal one
	grant := &own
	gate := f.last(grant)
	if gate == nil || grant.equal(f.reg.get(grant.ID)) || !grant.Expires.After(gate.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), windowTimeout)
	defer cancel()
	locked := f.lock(grant.target())
	former, err := f.place(ctx, grant, gate.firewall(grant.Service), bounds{})
	locked.Unlock()
	if err != nil {
		gate.cfg.Observer.tell(Event{Kind: EventRefused, Method: grant.Method, Source: grant.Source, Node: node, Err: err})
		return
	}
	gate.cfg.Observer.tell(Event{
		Kind: EventGranted, Method: grant.Method, Source: grant.Source, Grant: grant, Renewed: former != nil, Node: node,
	})
	if !f.allowed(grant) { // the configuration changed meanwhile
		f.remove(grant.ID, node, "client or service removed")
	}
}

// Remove implements Sink.
func (f fleet) Remove(id GrantID, node string) {
	f.telling.RLock()
	defer f.telling.RUnlock()
	f.remove(id, node, "another node")
}

func (f fleet) remove(id GrantID, node, by string) {
	grant := f.reg.remove(id)
	gate := f.last(nil)
	if grant == nil || gate == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), windowTimeout)
	defer cancel()
	locked := f.lock(grant.target())
	err := gate.shut(ctx, grant)
	locked.Unlock()
	gate.cfg.Observer.tell(Event{Kind: EventRevoked, Method: grant.Method, Source: grant.Source, Grant: grant, By: by, Node: node, Err: err})
}

// Revoke implements Sink.
func (f fleet) Revoke(sel Selection, node string) {
	f.telling.RLock()
	defer f.telling.RUnlock()
	gate := f.last(nil)
	if gate == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), windowTimeout)
	defer cancel()
	for _, grant := range f.Grants(sel.Match) {
		_, _ = gate.revoke(ctx, grant.ID, "another node", node)
	}
}

// Ban implements Sink.
func (f fleet) Ban(ban Ban) {
	f.eachBans(func(b *Bans) { b.adopt(ban) })
}

// Lift implements Sink.
func (f fleet) Lift(prefix netip.Prefix) {
	f.eachBans(func(b *Bans) { b.forget(prefix) })
}

func (f fleet) eachBans(do func(*Bans)) {
	f.activeMu.Lock()
	active := slices.Clone(f.active)
	f.activeMu.Unlock()
	for _, g := range active {
		if g.cfg.Bans != nil {
			do(g.cfg.Bans)
		}
	}
}
