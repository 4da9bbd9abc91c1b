// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// DefaultWindow is by how much a frame's time may differ from ours, either way,
// both ends included.
const DefaultWindow = 30 * time.Second

// Action is what a knock asks for.
type Action uint8

// The actions.
const (
	ActionOpen Action = iota
	ActionClose
)

// Knock is a verified frame: decoded and authentic. Whether it is in time, new
// and allowed is for the gatekeeper to say.
type Knock struct {
	// Client is whose frame it is.
	Client *Client
	Method Method
	Action Action
	// Source is where the frame came from.
	Source netip.Addr
	// For is the address or prefix that the knock is for; the zero Prefix means
	// the source.
	For netip.Prefix
	// Services names what to open. If it is empty, Ports does; if that is empty
	// too, everything that the client may reach.
	Services []string
	Ports    []PortRange
	// Length is how long it asks to open, 0 if it doesn't say.
	Length time.Duration
	// Session ties a knock to a later TCP frame; nil if there is none.
	Session []byte
	// Time is the frame's authenticated timestamp, zero if the method has none.
	Time time.Time
	// Window is how far Time may lie off, 0 for the gatekeeper's own.
	Window time.Duration
	// Replay identifies the frame, zero if the method has no replay protection of
	// ours (HTTP, where TLS has).
	Replay ReplayKey
}

// Config is what a Gatekeeper decides by. It must not change after use.
type Config struct {
	Keyring  *Keyring
	Services []*Service
	// Methods are those that are enabled; 0 means all.
	Methods MethodSet
	// Window is the time window, 0 for DefaultWindow.
	Window time.Duration
	// SessionWait is how long a TCP frame waits for a knock that is on its way;
	// negative means not at all, 0 means DefaultSessionWait.
	SessionWait time.Duration
	// Firewalls are the firewalls by the names that services use.
	Firewalls map[string]Firewall
	// Local reports addresses that no grant may be for: loopback, the host's own,
	// bridge gateways. Nil allows all.
	Local func(netip.Addr) bool
	// Bans are told of failures; nil means that nobody is banned.
	Bans *Bans
	// Limits bound what strangers cost where that matters; nil means no limits.
	Limits *Limiter
	// Observer is told of everything.
	Observer Observer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DefaultSessionWait is how long a TCP frame waits for its knock.
const DefaultSessionWait = time.Second

// maxWaiting is how many frames of one client and service may wait for a knock.
const maxWaiting = 8

// Gatekeeper turns knocks into grants. There is one per configuration; what
// lives longer is in the State.
type Gatekeeper struct {
	cfg      Config
	state    *State
	keyring  atomic.Pointer[Keyring]
	services map[string]*Service
}

// NewGatekeeper checks the configuration and makes a gatekeeper over the state.
func NewGatekeeper(cfg Config, state *State) (*Gatekeeper, error) {
	if cfg.Window <= 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.SessionWait == 0 {
		cfg.SessionWait = DefaultSessionWait
	}
	if cfg.Methods == 0 {
		cfg.Methods = AllMethods
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Keyring == nil {
		cfg.Keyring = new(Keyring)
	}
	g := &Gatekeeper{cfg: cfg, state: state, services: make(map[string]*Service)}
	for _, s := range cfg.Services {
		if err := s.Validate(); err != nil {
			return nil, err
		}
		if g.services[s.Name] != nil {
			return nil, fmt.Errorf("service %s is defined twice", s.Name)
		}
		if s.Firewall != "" && cfg.Firewalls[s.Firewall] == nil {
			return nil, fmt.Errorf("service %s: there is no firewall %q", s.Name, s.Firewall)
		}
		g.services[s.Name] = s
	}
	if err := g.check(cfg.Keyring); err != nil {
		return nil, err
	}
	g.keyring.Store(cfg.Keyring)
	return g, nil
}

// check finds clients that name a service which does not exist.
func (g *Gatekeeper) check(k *Keyring) error {
	for _, c := range k.Clients() {
		for _, name := range c.Services {
			if g.services[name] == nil {
				return fmt.Errorf("client %s: there is no service %q", c.ID, name)
			}
		}
	}
	return nil
}

// Keyring returns the clients as they are now.
func (g *Gatekeeper) Keyring() *Keyring { return g.keyring.Load() }

// State returns what outlives the gatekeeper.
func (g *Gatekeeper) State() *State { return g.state }

// Service finds a service by name, nil if there is none.
func (g *Gatekeeper) Service(name string) *Service { return g.services[name] }

// Services lists the services in the order of the configuration.
func (g *Gatekeeper) Services() []*Service { return g.cfg.Services }

// Enabled reports whether a method is enabled.
func (g *Gatekeeper) Enabled(m Method) bool { return g.cfg.Methods.Has(m) }

// Window is the time window.
func (g *Gatekeeper) Window() time.Duration { return g.cfg.Window }

// Now is the gatekeeper's clock.
func (g *Gatekeeper) Now() time.Time { return g.cfg.Now() }

// ServiceOf finds the service that lists the port; TCP goes before UDP where the
// knock names no protocol. Nil if there is none.
func (g *Gatekeeper) ServiceOf(proto Protocol, port uint16) *Service {
	protos := []Protocol{proto}
	if proto == ProtocolAny {
		protos = []Protocol{TCP, UDP}
	}
	for _, p := range protos {
		for _, s := range g.cfg.Services {
			if s.Has(p, port) {
				return s
			}
		}
	}
	return nil
}

// Refuse tells the observer that a knock was refused before it came to Admit:
// err is a *Refusal or a Reason.
func (g *Gatekeeper) Refuse(m Method, source netip.Addr, err error) {
	g.cfg.Observer.tell(Event{Kind: EventRefused, Method: m, Source: source, Err: err})
}

// Failed counts a failure of an address towards a ban: a wrong API key, or a TCP
// frame whose hint fits a client and which then fails. Foreign streams, stale
// frames and datagrams, whose source may be spoofed, are no failures.
func (g *Gatekeeper) Failed(m Method, source netip.Addr) {
	if g.cfg.Bans == nil {
		return
	}
	source = plain(source)
	if banned, until := g.cfg.Bans.Fail(source, g.cfg.Now()); banned {
		g.cfg.Observer.tell(Event{Kind: EventBanned, Method: m, Source: source, Until: until})
	}
}

// Bans returns the list of bans, nil if nobody is banned here.
func (g *Gatekeeper) Bans() *Bans { return g.cfg.Bans }

// Limits returns the limiter, nil if there is none.
func (g *Gatekeeper) Limits() *Limiter { return g.cfg.Limits }

// GrantByHand makes a grant of address scope as an operator orders: for a client
// and service of the configuration, without a knock. What the client may ask for
// does not bound the prefix; the length is as for a knock.
func (g *Gatekeeper) GrantByHand(ctx context.Context, client, service string, prefix netip.Prefix, length time.Duration) (*Grant, error) {
	c, s := g.Keyring().Client(client), g.services[service]
	switch {
	case c == nil:
		return nil, &Refusal{Reason: ReasonUnknownClient, Detail: fmt.Sprintf("there is no client %q", client)}
	case s == nil:
		return nil, &Refusal{Reason: ReasonUnknownService, Detail: fmt.Sprintf("there is no service %q", service)}
	case !c.MayReach(service):
		return nil, &Refusal{Reason: ReasonForbidden, Client: client, Detail: "the client may not reach service " + service}
	}
	if prefix = NormalPrefix(prefix); !prefix.IsValid() {
		return nil, &Refusal{Reason: ReasonMalformed, Detail: "the prefix is not valid"}
	}
	if err := g.grantable(prefix); err != nil {
		return nil, err
	}
	now := g.cfg.Now()
	grant := &Grant{
		ID: NewGrantID(), Client: client, Service: service, Scope: ScopeAddress, Prefix: prefix, Source: prefix.Addr(),
		Made: now, Expires: now.Add(s.Length(c, length)), Uses: -1,
	}
	renewed, err := g.state.enter(ctx, grant, g.firewall(service))
	if err != nil {
		return nil, err
	}
	g.cfg.Observer.tell(Event{Kind: EventGranted, Source: grant.Source, Grant: grant, Renewed: renewed})
	return grant, nil
}

// Admit decides on a knock. On success it returns the grants it made: one for a
// TCP frame, one per service otherwise, none for a knock that closes. The error
// is a *Refusal or wraps a Reason; then nothing was opened.
//
// Admit spends the knock's nonce, so it must be called once per knock. Of
// several calls with the same frame exactly one succeeds.
func (g *Gatekeeper) Admit(ctx context.Context, k Knock) ([]*Grant, error) {
	grants, err := g.admit(ctx, &k)
	if err != nil {
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			refusal = &Refusal{Reason: ReasonOf(err)}
			if ReasonOf(err) == ReasonStoreError || ReasonOf(err) == ReasonFirewallError {
				refusal.Detail = err.Error()
			}
		}
		if refusal.Client == "" {
			refusal.Client = k.Client.ID
		}
		g.Refuse(k.Method, k.Source, refusal)
		return nil, refusal
	}
	return grants, nil
}

func (g *Gatekeeper) admit(ctx context.Context, k *Knock) ([]*Grant, error) {
	now := g.cfg.Now()
	services, prefix, err := g.examine(k, now)
	if err != nil {
		return nil, err
	}
	if k.Replay != (ReplayKey{}) {
		n := Nonce{Key: k.Replay, Client: k.Client.ID, Time: k.Time}
		if err := g.state.Store.Spend(ctx, n, now, k.Window); err != nil {
			return nil, err
		}
	}
	switch {
	case k.Method.IsFrame():
		return g.admitStream(ctx, k, services[0], now)
	case k.Action == ActionClose:
		return nil, g.close(ctx, k, services, prefix)
	default:
		return g.open(ctx, k, services, prefix, now)
	}
}

// Preview reports whether Admit would get as far as spending the nonce, without
// any effect: for matchers, which may be asked many times. The services are
// those that the knock is for.
func (g *Gatekeeper) Preview(k Knock) ([]*Service, error) {
	services, _, err := g.examine(&k, g.cfg.Now())
	if err == nil && k.Replay != (ReplayKey{}) && g.state.Store.Seen(k.Replay) {
		err = ReasonReplay
	}
	return services, err
}

// examine makes every check that has no effect. It fills in the knock's
// defaults.
func (g *Gatekeeper) examine(k *Knock, now time.Time) (services []*Service, prefix netip.Prefix, err error) {
	k.Source = plain(k.Source)
	if k.Window <= 0 {
		k.Window = g.cfg.Window
	}
	if err = g.mayKnock(k, now); err != nil {
		return nil, prefix, err
	}
	if services, err = g.wanted(k); err != nil {
		return nil, prefix, err
	}
	if prefix, err = g.prefix(k); err != nil {
		return nil, prefix, err
	}
	if !k.Time.IsZero() {
		err = inTime(k.Time, now, k.Window)
	}
	return services, prefix, err
}

// mayKnock checks what the client may do, whatever the knock is for.
func (g *Gatekeeper) mayKnock(k *Knock, now time.Time) error {
	c := k.Client
	switch {
	case !g.cfg.Methods.Has(k.Method):
		return ReasonWrongMethod
	case !c.MayUse(k.Method):
		return &Refusal{Reason: ReasonWrongMethod, Detail: "the client may not use " + k.Method.String()}
	case !c.Expires.IsZero() && !now.Before(c.Expires):
		return &Refusal{Reason: ReasonForbidden, Detail: "the client has expired"}
	case !c.MayKnockFrom(k.Source):
		return &Refusal{Reason: ReasonForbidden, Detail: "the client may not knock from this address"}
	}
	return nil
}

// wanted finds the services that the knock is for; the client may reach all of
// them. For frames it is exactly one.
func (g *Gatekeeper) wanted(k *Knock) ([]*Service, error) {
	var services []*Service
	add := func(s *Service) error {
		if s == nil {
			return ReasonUnknownService
		}
		if !k.Client.MayReach(s.Name) {
			return &Refusal{Reason: ReasonForbidden, Detail: "the client may not reach service " + s.Name}
		}
		if !slices.Contains(services, s) {
			services = append(services, s)
		}
		return nil
	}
	switch {
	case len(k.Services) > 0:
		for _, name := range k.Services {
			if err := add(g.services[name]); err != nil {
				return nil, err
			}
		}
	case len(k.Ports) > 0:
		for _, p := range k.Ports {
			if err := add(g.ServiceOf(p.Protocol, p.Low)); err != nil {
				return nil, err
			}
		}
	default:
		for _, s := range g.cfg.Services {
			if k.Client.MayReach(s.Name) {
				services = append(services, s)
			}
		}
		if len(services) == 0 {
			return nil, &Refusal{Reason: ReasonForbidden, Detail: "the client may reach no service"}
		}
	}
	return services, nil
}

// prefix is the address or prefix that the knock is for.
func (g *Gatekeeper) prefix(k *Knock) (netip.Prefix, error) {
	if k.Method.IsFrame() {
		return AddrPrefix(k.Source), nil
	}
	if !k.For.IsValid() {
		p := AddrPrefix(k.Source)
		return p, g.grantable(p)
	}
	p := NormalPrefix(k.For)
	if !p.IsValid() {
		return p, &Refusal{Reason: ReasonMalformed, Detail: "the requested prefix is not valid"}
	}
	if p != AddrPrefix(k.Source) {
		least := k.Client.RemoteBits6
		if p.Addr().Is4() {
			least = k.Client.RemoteBits4
		}
		if least == 0 {
			return p, &Refusal{Reason: ReasonForbidden, Detail: "the client may not knock for another address"}
		}
		if p.Bits() < least {
			return p, &Refusal{Reason: ReasonForbidden, Detail: fmt.Sprintf("the client may knock for a /%d at most", least)}
		}
	}
	return p, g.grantable(p)
}

// grantable refuses addresses that no client can have.
func (g *Gatekeeper) grantable(p netip.Prefix) error {
	a := p.Addr()
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return &Refusal{Reason: ReasonForbidden, Detail: "no client has this address"}
	}
	if g.cfg.Local != nil && p.IsSingleIP() && g.cfg.Local(a) {
		return &Refusal{Reason: ReasonForbidden, Detail: "the address is this host's own; something hides the client's (see allow_local)"}
	}
	return nil
}

// inTime checks a timestamp against the clock, in whole milliseconds, both ends
// included.
func inTime(at, now time.Time, window time.Duration) error {
	age := now.UnixMilli() - at.UnixMilli()
	skew := time.Duration(-age) * time.Millisecond
	switch {
	case age > window.Milliseconds():
		return &Refusal{Reason: ReasonStale, Skew: skew}
	case age < -window.Milliseconds():
		return &Refusal{Reason: ReasonFuture, Skew: skew}
	}
	return nil
}

// admitStream makes the grant of a TCP frame: for this stream only.
func (g *Gatekeeper) admitStream(ctx context.Context, k *Knock, s *Service, now time.Time) ([]*Grant, error) {
	grant := &Grant{
		ID: NewGrantID(), Client: k.Client.ID, Service: s.Name, Method: k.Method, Scope: ScopeConnection,
		Prefix: AddrPrefix(k.Source), Source: k.Source, Made: now, Expires: now.Add(s.Length(k.Client, 0)),
		Uses: 1, Session: k.Session,
	}
	if s.RequireSession {
		sess, err := g.session(ctx, k, s)
		if err != nil {
			return nil, err
		}
		// Kept before the stream is let in, so that a restart gives no use back. A
		// store that can't keep it reports its own health.
		_ = g.state.Store.SaveGrant(ctx, sess)
		if s.CloseAfterAuth && sess.Uses == 0 {
			// The connection is established, so that the window has done its work.
			if _, err := g.Revoke(ctx, sess.ID, "used up"); err != nil {
				return nil, err
			}
		}
	}
	g.cfg.Observer.tell(Event{Kind: EventGranted, Method: k.Method, Source: k.Source, Grant: grant})
	return []*Grant{grant}, nil
}

// session takes one use of the knock session that the frame names. A knock that
// is on its way is waited for: the nonce is spent by now, so waiting tells
// nobody anything, and waiters are bounded.
func (g *Gatekeeper) session(ctx context.Context, k *Knock, s *Service) (*Grant, error) {
	key := sessionKey{k.Client.ID, s.Name}
	reg := g.state.reg
	if sess := reg.takeSession(key, k.Source, k.Session, g.state.Table.Now()); sess != nil {
		return sess, nil
	}
	refusal := &Refusal{Reason: ReasonNoSession}
	if g.cfg.SessionWait < 0 {
		return nil, refusal
	}
	woken, stop := reg.wait(key, maxWaiting)
	if woken == nil {
		return nil, refusal
	}
	defer stop()
	timer := time.NewTimer(g.cfg.SessionWait)
	defer timer.Stop()
	for {
		if sess := reg.takeSession(key, k.Source, k.Session, g.state.Table.Now()); sess != nil {
			return sess, nil
		}
		select {
		case <-woken:
		case <-timer.C:
			return nil, refusal
		case <-ctx.Done():
			return nil, refusal
		}
	}
}

// open makes the grants of a knock that is not a frame.
func (g *Gatekeeper) open(ctx context.Context, k *Knock, services []*Service, prefix netip.Prefix, now time.Time) ([]*Grant, error) {
	var made []*Grant
	for _, s := range services {
		grant := &Grant{
			ID: NewGrantID(), Client: k.Client.ID, Service: s.Name, Method: k.Method, Scope: ScopeAddress,
			Prefix: prefix, Source: k.Source, Made: now, Expires: now.Add(s.Length(k.Client, k.Length)),
			Uses: -1, Session: k.Session,
		}
		if s.RequireSession {
			grant.Scope = ScopeSession
			grant.Uses = max(1, s.Uses)
			if k.Method.CarriesSession() && len(k.Session) < 16 {
				err := &Refusal{Reason: ReasonNoSession, Detail: "service " + s.Name + " requires a session ID in the knock"}
				return nil, g.undo(ctx, made, err)
			}
		}
		renewed, err := g.state.enter(ctx, grant, g.firewall(s.Name))
		if err != nil {
			return nil, g.undo(ctx, made, err)
		}
		made = append(made, grant)
		if !g.state.allowed(grant) {
			return nil, g.undo(ctx, made, &Refusal{Reason: ReasonForbidden, Detail: "the configuration changed meanwhile"})
		}
		g.cfg.Observer.tell(Event{Kind: EventGranted, Method: k.Method, Source: k.Source, Grant: grant, Renewed: renewed})
	}
	return made, nil
}

func (g *Gatekeeper) undo(ctx context.Context, made []*Grant, err error) error {
	for _, grant := range made {
		_, _ = g.Revoke(ctx, grant.ID, "another part of the knock failed")
	}
	return err
}

// close ends the client's grants for the prefix and the services.
func (g *Gatekeeper) close(ctx context.Context, k *Knock, services []*Service, prefix netip.Prefix) error {
	for _, grant := range g.state.reg.list(func(grant *Grant) bool {
		return grant.Client == k.Client.ID && grant.Prefix == prefix &&
			slices.ContainsFunc(services, func(s *Service) bool { return s.Name == grant.Service })
	}) {
		if _, err := g.Revoke(ctx, grant.ID, "closed by the client"); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gatekeeper) firewall(service string) Firewall {
	if s := g.services[service]; s != nil && s.Firewall != "" {
		return g.cfg.Firewalls[s.Firewall]
	}
	return nil
}
