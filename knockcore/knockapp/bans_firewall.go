// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func (b *Bans) ports() (ports []knockcore.PortRange, err error) {
	for _, text := range b.Ports {
		r, err := knockcore.ParsePortRange(text)
		if err != nil {
			return nil, fmt.Errorf("bans: %w", err)
		}
		ports = append(ports, r)
	}
	return ports, nil
}

// firewall is the name of the firewall that keeps banned addresses out, "" for none.
func (b *Bans) firewall() string {
	if b == nil {
		return ""
	}
	return b.Firewall
}

// plan tells the firewall, if one keeps banned addresses out, before it is opened.
func (b *Bans) plan(plans map[string]FirewallPlan, services []*knockcore.Service) error {
	if b.firewall() == "" {
		return nil
	}
	return Placed(b.At, b.planWith(b.Firewall, plans, services))
}

func (b *Bans) planWith(name string, plans map[string]FirewallPlan, services []*knockcore.Service) error {
	plan, ok := plans[name]
	switch {
	case !ok:
		return fmt.Errorf("bans: there is no firewall %q; configure it with `firewall %s`", name, name)
	case plan.Ban == nil:
		return fmt.Errorf("bans: firewall %s can't keep banned addresses out; expect nftables", name)
	}
	cfg, err := b.convert()
	if err != nil {
		return err
	}
	bans := BanPlan{Allow: cfg.Allow}
	if bans.Ports, err = b.ports(); err != nil {
		return err
	}
	for _, s := range services {
		if s.Firewall != name {
			bans.Spare = append(bans.Spare, s.Name)
		}
	}
	if err := plan.Ban(bans); err != nil {
		return fmt.Errorf("bans: firewall %s: %w", name, err)
	}
	plan.bans = &bans
	plans[name] = plan
	return nil
}

// checkBans refuses what would make bans stop valid knocks where nobody has said so.
func (a *App) checkBans(services []*knockcore.Service) error {
	if a.Bans.firewall() == "" {
		return nil
	}
	return Placed(a.Bans.At, a.checkBanPorts(services))
}

func (a *App) checkBanPorts(services []*knockcore.Service) error {
	ports, err := a.Bans.ports()
	if err != nil {
		return err
	}
	for _, r := range ports {
		for _, s := range a.sources {
			for i := range s.Inputs {
				if reach := s.Inputs[i].Reach; reach.Socket && overlap(r, reach.Ports) {
					return fmt.Errorf("bans: ports %v take in %v, where source %s hears knocks: a ban must not stop a valid one; name other ports", r, reach.Ports, s.Inputs[i].Label)
				}
			}
		}
		for _, s := range services {
			if s.Firewall == a.Bans.Firewall {
				continue // strangers are kept out there anyway
			}
			for _, p := range s.Ports {
				if overlap(r, p) && !named(p, ports) {
					return fmt.Errorf("bans: ports %v take in %v of service %s, where a banned client could not send a valid frame any more; name %[2]v too if that is meant", r, p, s.Name)
				}
			}
		}
	}
	return nil
}

// named reports whether the range, or a part of it, is named by itself.
func named(p knockcore.PortRange, ports []knockcore.PortRange) bool {
	for _, r := range ports {
		if r.Protocol == p.Protocol && p.Low <= r.Low && r.High <= p.High {
			return true
		}
	}
	return false
}

func overlap(a, b knockcore.PortRange) bool {
	return (a.Protocol == b.Protocol || b.Protocol == knockcore.ProtocolAny) && a.Low <= b.High && b.Low <= a.High
}
