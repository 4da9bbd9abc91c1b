// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

func init() { caddy.RegisterModule(new(PacketSource)) }

// PacketSource takes knocks from packet sockets (AF_PACKET), as packets come in and
// whatever a firewall does with them: the same methods as NFLogSource. A filter in
// the kernel keeps other traffic away. Linux, with CAP_NET_RAW, which Caddy's own
// systemd unit does not have.
type PacketSource struct {
	PassiveOptions
}

// CaddyModule returns the Caddy module information.
func (*PacketSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.sources.packet", New: func() caddy.Module { return new(PacketSource) }}
}

// KnockSource implements SourceConverter.
func (p *PacketSource) KnockSource() (*SourceConfig, error) {
	s, err := p.source()
	if err != nil {
		return nil, fmt.Errorf("source packet: %w", err)
	}
	label := strings.TrimSpace("packet " + strings.Join(p.Interfaces, " "))
	cfg := source.PacketsConfig{Interfaces: s.Interfaces, Targets: s.Targets}
	key := label
	if len(s.Targets) > 0 {
		key += fmt.Sprint(" to ", s.Targets)
	}
	s.Inputs = []SourceInput{{
		Key:   key,
		Label: label,
		Open:  func([]source.Source) (source.Source, error) { return source.ListenPackets(cfg) },
	}}
	return s, nil
}

// UnmarshalCaddyfile reads the source: `packet`, perhaps with a block of the options
// that NFLogSource.UnmarshalCaddyfile lists for both.
func (p *PacketSource) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the source's name
	p.At = Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("source packet takes no argument; open a block after it")
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		known, err := p.unmarshal(opts, d)
		if err != nil {
			return err
		}
		if !known {
			return opts.Unknown(passiveOptionNames...)
		}
	}
	if _, err := p.KnockSource(); err != nil {
		return Placed(p.At, err)
	}
	return nil
}

// Interface guards
var (
	_ SourceConverter       = (*PacketSource)(nil)
	_ caddyfile.Unmarshaler = (*PacketSource)(nil)
)
