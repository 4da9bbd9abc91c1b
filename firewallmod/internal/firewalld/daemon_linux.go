// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/godbus/dbus/v5"
)

const rootPath = dbus.ObjectPath("/org/fedoraproject/FirewallD1")

// daemon is what we ask of firewalld.
type daemon struct{ bus }

// zone finds the zone and checks it.
func (d *daemon) zone(ctx context.Context, c Config) (string, error) {
	name := c.Zone
	if name == "" {
		if err := d.call(ctx, rootPath, busName+".getDefaultZone", []any{&name}); err != nil {
			return "", err
		}
	}
	var settings map[string]dbus.Variant
	err := d.call(ctx, rootPath, zoneMethods+"getZoneSettings2", []any{&settings}, name)
	if refusedWith(err, "INVALID_ZONE") {
		return "", fmt.Errorf("%w: there is no zone %s; make it with `firewall-cmd --permanent --new-zone=%s && firewall-cmd --reload`", ErrZone, name, name)
	}
	if err != nil || c.Target == "" {
		return name, err
	}
	target := "default"
	if v, ok := settings["target"]; ok {
		target = fmt.Sprint(v.Value())
	}
	if target == "%%REJECT%%" {
		target = "REJECT"
	}
	if target != c.Target {
		return "", fmt.Errorf("%w: zone %s has target %s, not %s; set it with `firewall-cmd --permanent --zone=%s --set-target=%s && firewall-cmd --reload`, which Caddy never does by itself",
			ErrZone, name, target, c.Target, name, c.Target)
	}
	return name, nil
}

// bind makes the traffic of the sources belong to the zone.
func (d *daemon) bind(ctx context.Context, zone string, sources []netip.Prefix) error {
	for _, source := range sources {
		var now string
		if err := d.call(ctx, rootPath, zoneMethods+"getZoneOfSource", []any{&now}, source.String()); err != nil {
			return err
		}
		if now != "" && now != zone {
			return fmt.Errorf("%w: source %v belongs to zone %s already", ErrZone, source, now)
		}
		if now == "" {
			if err := d.call(ctx, rootPath, zoneMethods+"addSource", nil, zone, source.String()); err != nil && !refusedWith(err, "ALREADY_ENABLED") {
				return err
			}
		}
	}
	return nil
}

// rules returns the rich rules of the zone.
func (d *daemon) rules(ctx context.Context, zone string) (rules []string, err error) {
	err = d.call(ctx, rootPath, zoneMethods+"getRichRules", []any{&rules}, zone)
	return rules, err
}

// add adds a rule for so many seconds, 0 for good.
func (d *daemon) add(ctx context.Context, zone, rule string, seconds int64) error {
	err := d.call(ctx, rootPath, zoneMethods+"addRichRule", nil, zone, rule, int32(seconds))
	if refusedWith(err, "ALREADY_ENABLED") {
		return nil
	}
	return err
}

func (d *daemon) remove(ctx context.Context, zone, rule string) error {
	err := d.call(ctx, rootPath, zoneMethods+"removeRichRule", nil, zone, rule)
	if refusedWith(err, "NOT_ENABLED") {
		return nil
	}
	return err
}

// permanent is the zone in the permanent configuration.
func (d *daemon) permanent(ctx context.Context, zone string) (path dbus.ObjectPath, rules []string, err error) {
	if err := d.call(ctx, configPath, configName+".getZoneByName", []any{&path}, zone); err != nil {
		return "", nil, err
	}
	err = d.call(ctx, path, configZone+"getRichRules", []any{&rules})
	return path, rules, err
}

func (d *daemon) addPermanent(ctx context.Context, zone dbus.ObjectPath, rule string) error {
	err := d.call(ctx, zone, configZone+"addRichRule", nil, rule)
	if refusedWith(err, "ALREADY_ENABLED") {
		return nil
	}
	return err
}

func (d *daemon) removePermanent(ctx context.Context, zone dbus.ObjectPath, rule string) error {
	err := d.call(ctx, zone, configZone+"removeRichRule", nil, rule)
	if refusedWith(err, "NOT_ENABLED") {
		return nil
	}
	return err
}

// bindPermanent keeps the sources over reloads.
func (d *daemon) bindPermanent(ctx context.Context, zone dbus.ObjectPath, sources []netip.Prefix) error {
	for _, source := range sources {
		if err := d.call(ctx, zone, configZone+"addSource", nil, source.String()); err != nil && !refusedWith(err, "ALREADY_ENABLED") {
			return err
		}
	}
	return nil
}

// unbind takes the sources from the zone.
func (d *daemon) unbind(ctx context.Context, zone string, path dbus.ObjectPath, sources []netip.Prefix) error {
	for _, source := range sources {
		if err := d.call(ctx, rootPath, zoneMethods+"removeSource", nil, zone, source.String()); err != nil && !unknownSource(err) {
			return err
		}
		if err := d.call(ctx, path, configZone+"removeSource", nil, source.String()); err != nil && !unknownSource(err) {
			return err
		}
	}
	return nil
}

func unknownSource(err error) bool {
	return refusedWith(err, "NOT_ENABLED") || refusedWith(err, "UNKNOWN_SOURCE")
}
