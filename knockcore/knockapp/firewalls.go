// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// FirewallConverter is implemented by the modules of namespace knock.firewalls:
// they hold configuration and make the engine.
type FirewallConverter interface {
	// KnockFirewall says which firewall it is and how to get it. It touches nothing.
	KnockFirewall() FirewallPlan
}

// FirewallPlan is how a configuration wants a firewall.
type FirewallPlan struct {
	// Key is the firewall's identity: configurations with the same key share the
	// engine, so that a reload closes and opens nothing.
	Key string
	// Open makes the engine. It is called when the app starts, once while any
	// configuration uses the key.
	Open func() (knockcore.Firewall, error)
	// Configure changes an engine that another configuration made; Setup follows.
	Configure func(knockcore.Firewall) error
	// OnExit is what is left behind when the last configuration ends.
	OnExit knockcore.ExitMode
	// Interfaces are those whose traffic the firewall gates; none means all.
	Interfaces []string
	// Services are those that the options name: each must be one of the firewall's.
	Services []string
	// At is where the firewall stands in the Caddyfile, for messages.
	At string
	// Warnings, if set, tells after Setup what an operator should know.
	Warnings func(knockcore.Firewall) []string
	// Counts, if set, reads the packet counters, by service; "" stands for bans.
	Counts func(context.Context, knockcore.Firewall) (map[string]FirewallCounts, error)
	// Ban, if set, makes the firewall, which is then a knockcore.Wall, keep banned
	// addresses out besides. It is called before all of these, if at all.
	Ban func(BanPlan) error
	// Print, if set, writes the rules that keep the services closed, for the
	// firewall's own tool to load before Caddy starts.
	Print func([]*knockcore.Service) (string, error)
	// Stands, if set, tells whether the rules stand, whoever keeps them.
	Stands func(context.Context) (bool, error)
	// Remove, if set, takes the rules away that a process left behind, which opens
	// the services, and says whether there were any. It refuses while a process
	// keeps them.
	Remove func(context.Context) (bool, error)

	bans *BanPlan // what Ban was told
}

// BanPlan says which ports banned addresses are kept out of.
type BanPlan struct {
	// Ports are those ports.
	Ports []knockcore.PortRange
	// Allow lists who is never kept out.
	Allow []netip.Prefix
	// Spare names the services that the firewall does not gate: it is told of their
	// windows nevertheless, because who holds a grant is not kept out.
	Spare []string
}

// firewallTimeout bounds setting a firewall up and stopping it.
const firewallTimeout = 10 * time.Second

// engines holds the firewalls of all configurations, by key.
var engines = caddy.NewUsagePool()

// engine is a firewall and the configurations that use it, in the order in which
// they started. The last one's wishes hold; when it goes first, because its reload
// failed, those of the one before hold again.
type engine struct {
	firewall knockcore.Firewall

	mu    sync.Mutex
	users []*firewallUse
	exit  knockcore.ExitMode
	names map[string]bool // what it has windows for
}

// firewallUse is one configuration's use of an engine.
type firewallUse struct {
	plan     FirewallPlan
	services []*knockcore.Service
	engine   *engine
	// fresh names the services that the engine had no windows for before this use;
	// banWindows stands for bans.
	fresh []string
	// renew opens windows for services again which the engine has lost meanwhile.
	renew func(services []string)
}

// banWindows stands for bans where names of services are expected.
const banWindows = ""

// names are what the engine has windows for.
func (u *firewallUse) names() map[string]bool {
	names := make(map[string]bool)
	for _, s := range u.services {
		names[s.Name] = true
	}
	if u.plan.bans != nil {
		names[banWindows] = true
		for _, name := range u.plan.bans.Spare {
			names[name] = true
		}
	}
	return names
}

// Destruct stops the firewall when the last configuration has ended.
func (e *engine) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), firewallTimeout)
	defer cancel()
	return e.firewall.Stop(ctx, e.exit)
}

// apply makes the engine what the use wants. The caller holds the lock.
func (e *engine) apply(ctx context.Context, use *firewallUse, fresh bool) error {
	if !fresh && use.plan.Configure != nil {
		if err := use.plan.Configure(e.firewall); err != nil {
			return err
		}
	}
	e.exit = use.plan.OnExit
	if err := e.firewall.Setup(ctx, use.services); err != nil {
		return err
	}
	names := use.names()
	use.fresh = nil
	for name := range names {
		if !e.names[name] {
			use.fresh = append(use.fresh, name)
		}
	}
	e.names = names
	return nil
}

// useFirewall takes a firewall into use and closes the services.
func useFirewall(ctx context.Context, plan FirewallPlan, services []*knockcore.Service) (*firewallUse, error) {
	ctx, cancel := context.WithTimeout(ctx, firewallTimeout)
	defer cancel()
	value, loaded, err := engines.LoadOrNew(plan.Key, func() (caddy.Destructor, error) {
		fw, err := plan.Open()
		if err != nil {
			return nil, err
		}
		return &engine{firewall: fw}, nil
	})
	if err != nil {
		return nil, err
	}
	e := value.(*engine)
	use := &firewallUse{plan: plan, services: services, engine: e}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.users = append(e.users, use)
	if err := e.apply(ctx, use, !loaded); err != nil {
		e.users = e.users[:len(e.users)-1]
		e.restore()
		_, _ = engines.Delete(plan.Key)
		return nil, err
	}
	return use, nil
}

// restore applies the wishes of the last configuration that is left.
func (e *engine) restore() {
	if len(e.users) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), firewallTimeout)
	defer cancel()
	use := e.users[len(e.users)-1]
	if err := e.apply(ctx, use, false); err == nil && use.renew != nil && len(use.fresh) > 0 {
		use.renew(use.fresh)
	} else if err != nil {
		caddy.Log().Named("knock").Error("going back to the firewall of the configuration before: " + err.Error())
	}
}

// release ends the use; the engine goes on for others.
func (u *firewallUse) release() error {
	e := u.engine
	e.mu.Lock()
	last := len(e.users) > 0 && e.users[len(e.users)-1] == u
	e.users = slices.DeleteFunc(e.users, func(other *firewallUse) bool { return other == u })
	if last {
		e.restore()
	}
	e.mu.Unlock()
	_, err := engines.Delete(u.plan.Key)
	return err
}

// loadFirewalls loads the guest modules and checks that services name them.
func (a *App) loadFirewalls(ctx caddy.Context, services []*knockcore.Service) error {
	var err error
	if a.plans, err = loadPlans(ctx, a, services); err != nil {
		return err
	}
	for _, d := range a.Doors {
		if s := d.service(); s != nil && s.Firewall != "" {
			a.plans[s.Firewall] = d.plan()
		}
	}
	for i, s := range services {
		if _, ok := a.plans[s.Firewall]; s.Firewall != "" && !ok {
			return Placed(a.Services[i].At, fmt.Errorf("service %s: there is no firewall %q; configure it with `firewall %s`", s.Name, s.Firewall, s.Firewall))
		}
	}
	for name, plan := range a.plans {
		for _, service := range plan.Services {
			if !slices.ContainsFunc(services, func(s *knockcore.Service) bool { return s.Name == service && s.Firewall == name }) {
				return Placed(plan.At, fmt.Errorf("firewall %s: %q is none of its services; write `firewall %s` into `service %s`", name, service, name, service))
			}
		}
	}
	return nil
}

// loadPlans loads the firewalls of an app, by name, without touching anything.
func loadPlans(ctx caddy.Context, a *App, services []*knockcore.Service) (map[string]FirewallPlan, error) {
	plans := make(map[string]FirewallPlan)
	if len(a.FirewallsRaw) > 0 {
		mods, err := ctx.LoadModule(a, "FirewallsRaw")
		if err != nil {
			return nil, fmt.Errorf("loading firewall modules: %w", err)
		}
		for name, mod := range mods.(map[string]any) {
			converter, ok := mod.(FirewallConverter)
			if !ok {
				return nil, fmt.Errorf("module %T is not a firewall", mod)
			}
			plans[name] = converter.KnockFirewall()
		}
	}
	return plans, a.Bans.plan(plans, services)
}

// servicesOf are the services that a firewall guards.
func servicesOf(firewall string, services []*knockcore.Service) (guarded []*knockcore.Service) {
	for _, s := range services {
		if s.Firewall == firewall {
			guarded = append(guarded, s)
		}
	}
	return guarded
}

// startFirewalls closes the services and returns the firewalls by name.
func (a *App) startFirewalls(ctx context.Context) (map[string]knockcore.Firewall, error) {
	firewalls := make(map[string]knockcore.Firewall)
	for name, plan := range a.plans {
		use, err := useFirewall(ctx, plan, servicesOf(name, a.config.Services))
		if err != nil {
			return nil, fmt.Errorf("firewall %s: %w", name, err)
		}
		a.uses = append(a.uses, use)
		if checker, ok := use.engine.firewall.(knockcore.Checker); ok {
			a.standing.checkers = append(a.standing.checkers, firewallChecker{name, checker})
		}
		firewalls[name] = newMeteredFirewall(use.engine.firewall, name)
		if plan.bans != nil {
			wall, ok := use.engine.firewall.(knockcore.Wall)
			if !ok {
				return nil, fmt.Errorf("firewall %s does not keep banned addresses out", name)
			}
			a.wall = newMeteredWall(wall, name)
		}
		if plan.Warnings != nil {
			for _, w := range plan.Warnings(use.engine.firewall) {
				a.logger.Warn("firewall " + name + ": " + w)
			}
		}
	}
	return firewalls, nil
}

// renewWindows opens the windows of live grants for services that their firewall had
// no windows for before: a reload may give a service another one. It does so again
// when a reload that fails has taken them away.
func (a *App) renewWindows(ctx context.Context, gate *knockcore.Gatekeeper) error {
	for _, use := range a.uses {
		e := use.engine
		e.mu.Lock()
		use.renew = func(services []string) {
			err := gate.Reopen(ctx, services)
			if slices.Contains(services, banWindows) {
				err = errors.Join(err, a.config.Bans.Restore(ctx))
			}
			if err != nil {
				a.logger.Error("opening windows again after a reload that failed", zap.Error(err))
			}
		}
		fresh := use.fresh
		e.mu.Unlock()
		if err := gate.Reopen(ctx, fresh); err != nil {
			return err
		}
	}
	return nil
}

// stopFirewalls ends this configuration's use of its firewalls.
func (a *App) stopFirewalls() error {
	var first error
	for _, use := range slices.Backward(a.uses) {
		if err := use.release(); err != nil && first == nil {
			first = err
		}
	}
	a.uses = nil
	return first
}
