// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// admitStream makes the grant of a TCP frame: for this stream only.
func (g *Gatekeeper) admitStream(ctx context.Context, k *Knock, s *Service, now time.Time) ([]*Grant, error) {
	grant := &Grant{
		ID: NewGrantID(), Client: k.Client.ID, Service: s.Name, Method: k.Method, Scope: ScopeConnection,
		Prefix: AddrPrefix(k.Source), Source: k.Source, Made: now, Expires: now.Add(s.Length(k.Client, 0)),
		Uses: 1, Session: k.Session,
	}
	if s.RequireSession {
		sess, left, err := g.session(ctx, k, s)
		if err != nil {
			return nil, err
		}
		if s.CloseAfterAuth && left == 0 {
			// The connection is established, so that the window has done its work.
			if _, err := g.Revoke(ctx, sess.ID, "used up"); err != nil {
				return nil, err
			}
		}
	}
	g.cfg.Observer.tell(Event{Kind: EventGranted, Method: k.Method, Source: k.Source, Grant: grant})
	return []*Grant{grant}, nil
}

// maxWaiting is how many frames of one client and service may wait for a knock.
// Each is a verified frame of a client's own, so a bound that a browser or a git
// client with dozens of connections never meets costs little.
const maxWaiting = 64

// session takes one use of the knock session that the frame names. A knock that
// is on its way is waited for: the nonce is spent by now, so waiting tells
// nobody anything, and waiters are bounded. left is how many uses the session has
// afterwards.
func (g *Gatekeeper) session(ctx context.Context, k *Knock, s *Service) (sess *Grant, left int, err error) {
	key := sessionKey{k.Client.ID, s.Name}
	reg := g.state.reg
	if sess, left, err = g.takeSession(ctx, key, k); sess != nil || err != nil {
		return sess, left, err
	}
	refusal := &Refusal{Reason: ReasonNoSession}
	if g.cfg.SessionWait < 0 {
		return nil, 0, refusal
	}
	woken, stop := reg.wait(key, maxWaiting)
	if woken == nil {
		return nil, 0, refusal
	}
	defer stop()
	timer := time.NewTimer(g.cfg.SessionWait)
	defer timer.Stop()
	for {
		if sess, left, err = g.takeSession(ctx, key, k); sess != nil || err != nil {
			return sess, left, err
		}
		select {
		case <-woken:
		case <-timer.C:
			return nil, 0, refusal
		case <-ctx.Done():
			return nil, 0, refusal
		}
	}
}

// takeSession takes one use of a session that fits the frame, nil if there is
// none. It is kept before the stream is let in, so that a restart gives no use
// back; in a fleet, it is taken from all nodes.
func (g *Gatekeeper) takeSession(ctx context.Context, key sessionKey, k *Knock) (sess *Grant, left int, err error) {
	for {
		sess = g.state.reg.takeSession(key, k.Source, k.Session, g.state.Table.Now())
		if sess == nil {
			return nil, 0, nil
		}
		if g.state.shared == nil {
			// A store that can't keep it reports its own health.
			_ = g.state.Store.SaveGrant(ctx, sess)
			return sess, sess.Uses, nil
		}
		left, err = g.state.shared.TakeUse(ctx, sess)
		if err == nil {
			return sess, left, nil
		}
		if ReasonOf(err) != ReasonNoSession {
			return nil, 0, err
		}
		// Another node was faster; here it is used up, too, sooner or later.
	}
}

// open makes the grants of a knock that is not a frame.
func (g *Gatekeeper) open(ctx context.Context, k *Knock, services []*Service, prefix netip.Prefix, now time.Time) ([]*Grant, error) {
	var room [4]*Grant
	made, formers := make([]*Grant, 0, len(services)), room[:0]
	for _, s := range services {
		grant := &Grant{
			ID: g.state.newID(k.Client.ID, s.Name, prefix), Client: k.Client.ID, Service: s.Name, Method: k.Method, Scope: ScopeAddress,
			Prefix: prefix, Source: k.Source, Made: now, Expires: now.Add(s.Length(k.Client, k.Length)),
			Uses: -1, Session: k.Session,
		}
		if k.Device != "" && k.Method == MethodHTTP && k.Session == nil {
			grant.Session = []byte(devicePrefix + k.Device)
		}
		if s.RequireSession {
			grant.Scope, grant.ID = ScopeSession, NewGrantID()
			grant.Uses = max(1, s.Uses)
			if k.Method.CarriesSession() && len(k.Session) < 16 {
				err := &Refusal{Reason: ReasonNoSession, Detail: "service " + s.Name + " requires a session ID in the knock"}
				return nil, g.undo(ctx, made, formers, err)
			}
		}
		former, err := g.state.enter(ctx, grant, g.firewall(s.Name), bounds{method: k.MaxGrants, client: k.Client.maxGrants()})
		if err != nil {
			return nil, g.undo(ctx, made, formers, err)
		}
		made, formers = append(made, grant), append(formers, former)
		if !g.state.allowed(grant) {
			return nil, g.undo(ctx, made, formers, &Refusal{Reason: ReasonForbidden, Detail: "the configuration changed meanwhile"})
		}
		g.cfg.Observer.tell(Event{Kind: EventGranted, Method: k.Method, Source: k.Source, Grant: grant, Renewed: former != nil})
	}
	return made, nil
}

// undo takes back what was made before something failed: a grant that was renewed
// is again as it was.
func (g *Gatekeeper) undo(ctx context.Context, made, formers []*Grant, err error) error {
	for i, grant := range made {
		if former := formers[i]; former != nil && g.state.allowed(former) {
			if _, enterErr := g.state.enter(ctx, former, g.firewall(former.Service), bounds{}); enterErr == nil {
				continue
			}
		}
		_, _ = g.Revoke(ctx, grant.ID, "another part of the knock failed")
	}
	return err
}

// close ends the client's grants for the prefix and the services.
func (g *Gatekeeper) close(ctx context.Context, k *Knock, services []*Service, prefix netip.Prefix) error {
	for _, grant := range g.state.reg.listOf(prefix, func(grant *Grant) bool {
		return grant.Client == k.Client.ID &&
			slices.ContainsFunc(services, func(s *Service) bool { return s.Name == grant.Service })
	}) {
		if _, err := g.Revoke(ctx, grant.ID, "closed by the client"); err != nil {
			return err
		}
	}
	return nil
}

// firewall is what windows of the service open in, nil if nothing does.
func (g *Gatekeeper) firewall(service string) Firewall {
	s := g.services[service]
	if s == nil {
		return nil
	}
	var own Firewall
	if s.Firewall != "" {
		own = g.cfg.Firewalls[s.Firewall]
	}
	if g.cfg.Wall == "" || s.Firewall == g.cfg.Wall {
		return own
	}
	return spared{own, g.cfg.Firewalls[g.cfg.Wall]}
}

// spared tells the wall of the windows of a service that it does not gate. What goes
// wrong there is no error: the grant holds, and few are banned.
type spared struct {
	Firewall // nil if the service has none
	wall     Firewall
}

// Open implements Firewall.
func (s spared) Open(ctx context.Context, windows ...Window) error {
	if s.Firewall != nil {
		if err := s.Firewall.Open(ctx, windows...); err != nil {
			return err
		}
	}
	_ = s.wall.Open(ctx, windows...)
	return nil
}

// Close implements Firewall.
func (s spared) Close(ctx context.Context, windows ...Window) error {
	_ = s.wall.Close(ctx, windows...)
	if s.Firewall == nil {
		return nil
	}
	return s.Firewall.Close(ctx, windows...)
}
