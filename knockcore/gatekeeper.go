// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
)

// DefaultWindow is by how much a frame's time may differ from ours, either way,
// both ends included.
const DefaultWindow = 30 * time.Second

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
	// Wall names the firewall that banned addresses are kept out by: it is told who
	// holds a grant, whatever the service. "" means none.
	Wall string
	// Cutter ends established flows where grants of services that cut end; nil
	// means that nobody does.
	Cutter Cutter
	// Local reports addresses that no grant may be for: loopback, the host's own,
	// bridge gateways. Nil allows all.
	Local func(netip.Addr) bool
	// Bans are told of failures; nil means that nobody is banned.
	Bans *Bans
	// Limits bound what strangers cost where that matters; nil means no limits.
	Limits *Limiter
	// Observer is told of everything.
	Observer Observer
	// Timed is told how long each decision of Admit took, with what it opened: on
	// the goroutine that knocked, so it must be quick. Nil means nobody asks.
	Timed func(m Method, took time.Duration)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DefaultSessionWait is how long a TCP frame waits for its knock.
const DefaultSessionWait = time.Second

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
	if cfg.Wall != "" && cfg.Firewalls[cfg.Wall] == nil {
		return nil, fmt.Errorf("bans: there is no firewall %q", cfg.Wall)
	}
	if err := g.check(cfg.Keyring); err != nil {
		return nil, err
	}
	g.keyring.Store(cfg.Keyring)
	return g, nil
}

// check finds clients that name a service which does not exist.
func (g *Gatekeeper) check(k *Keyring) error {
	for _, c := range k.sorted {
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

// KeepsOut reports whether a firewall keeps the address out because it is banned, at
// the ports that were named for that.
func (g *Gatekeeper) KeepsOut(addr netip.Addr) bool {
	return g.cfg.Wall != "" && g.cfg.Bans != nil && g.cfg.Bans.Banned(addr, g.cfg.Now())
}

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
		ID: g.state.newID(client, service, prefix), Client: client, Service: service, Scope: ScopeAddress, Prefix: prefix, Source: prefix.Addr(),
		Made: now, Expires: now.Add(s.Length(c, length)), Uses: -1,
	}
	former, err := g.state.enter(ctx, grant, g.firewall(service), bounds{})
	if err != nil {
		return nil, err
	}
	g.cfg.Observer.tell(Event{Kind: EventGranted, Source: grant.Source, Grant: grant, Renewed: former != nil})
	return grant, nil
}

// Admit decides on a knock. On success it returns the grants it made: one for a
// TCP frame, one per service otherwise, none for a knock that closes. The error
// is a *Refusal or wraps a Reason; then nothing was opened.
//
// Admit spends the knock's nonce, so it must be called once per knock. Of
// several calls with the same frame exactly one succeeds.
func (g *Gatekeeper) Admit(ctx context.Context, k Knock) ([]*Grant, error) {
	if g.cfg.Timed != nil {
		defer func(begun time.Time) { g.cfg.Timed(k.Method, time.Since(begun)) }(time.Now())
	}
	grants, err := g.admit(ctx, &k)
	if err != nil {
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			refusal = &Refusal{Reason: ReasonOf(err)}
			switch refusal.Reason {
			case ReasonStoreError, ReasonFirewallError:
				refusal.Detail = err.Error()
			case ReasonStale: // by the store: by our clock it is in time
				refusal.Detail = "it is as old as frames that may have been forgotten: see the store's warning, and try again later"
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
	} else if g.state.shared != nil {
		if err := g.state.shared.Admits(); err != nil {
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
