// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/nft"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

func init() { caddy.RegisterModule(new(NFLogSource)) }

// NFLogSource takes knocks from packets that nftables hands over, before any rule
// decides about them: libknock's `udp-passive`, `udp-passive-seq`, `tcp-syn` and
// `tcp-syn-seq`, `pyknock`, `fwknop` and port sequences. No port has to be open.
// Linux, with CAP_NET_ADMIN, which Caddy's own systemd unit has. The rules are in a
// table of their own, which is mended when it is flushed and goes with Caddy.
type NFLogSource struct {
	PassiveOptions

	// Group is the group of NFLOG, 0 to 65535, that nobody else reads. Default: 62201.
	Group *uint16 `json:"group,omitempty"`

	// Table is the name of the table with the log rules. Default: caddy_knock_log_ and
	// the group.
	Table string `json:"table,omitempty"`

	// Drop also drops the datagrams to `ports`, so that this host does not answer that
	// they are closed. Default: false; then they are as open or closed as a firewall
	// makes them.
	Drop bool `json:"drop,omitempty"`

	// Protect makes the kernel refuse changes of the table by others while Caddy runs
	// (Linux 6.9). Default: false.
	Protect bool `json:"protect,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*NFLogSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.sources.nflog", New: func() caddy.Module { return new(NFLogSource) }}
}

// KnockSource implements SourceConverter.
func (n *NFLogSource) KnockSource() (*SourceConfig, error) {
	s, err := n.source()
	if err != nil {
		return nil, fmt.Errorf("source nflog: %w", err)
	}
	if n.Drop {
		if s.Drop = s.Dispatch.KnockPorts; len(s.Drop) == 0 {
			return nil, errors.New("source nflog: drop concerns the ports that `ports` lists, and there are none")
		}
	}
	cfg := source.NFLogConfig{Group: source.DefaultNFLogGroup, Table: n.Table, Protect: n.Protect, OnHeal: logHealed}
	if n.Group != nil {
		cfg.Group = *n.Group
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("source nflog: %w", err)
	}
	key := fmt.Sprintf("nflog group %d", cfg.Group)
	if cfg.Table != "" {
		key += " table " + cfg.Table
	}
	if cfg.Protect {
		key += ", protected"
	}
	s.Inputs = []SourceInput{{
		Key:   key,
		Label: fmt.Sprintf("nflog %d", cfg.Group),
		Open:  func([]source.Source) (source.Source, error) { return source.ListenNFLog(cfg) },
	}}
	return s, nil
}

// logHealed logs a repair of a table. The source outlives configurations, so the
// logger is Caddy's own.
func logHealed(h nft.Heal) {
	logger := caddy.Log().Named("knock.sources.nflog")
	if h.Err != nil {
		logger.Error("the log rules were broken and can't be mended yet", zap.String("found", h.Reason), zap.Error(h.Err))
		return
	}
	logger.Warn("the log rules were broken and are mended", zap.String("found", h.Reason), zap.Duration("took", h.Took))
}

// UnmarshalCaddyfile reads the source. Syntax:
//
//	nflog {
//		group   <number>
//		table   <name>
//		drop
//		protect
//		<options of both passive sources>
//	}
//
// Those options are:
//
//	ports            <udp/port...>
//	methods          <method...>
//	interfaces       <name...>
//	target           <address|prefix...>
//	sequence         <length> [<window>]
//	syn_slot         <duration>
//	legacy_syn
//	max_frame        <bytes>
//	pyknock_window   <duration>
//	pyknock_services <name...>
//	fwknop_window    <duration>
//	queue            <count>
//	workers          <count>
func (n *NFLogSource) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the source's name
	n.At = Place(d)
	if d.CountRemainingArgs() > 0 {
		return d.Errf("source nflog takes no argument; open a block after it")
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		known, err := n.unmarshal(opts, d)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		switch d.Val() {
		case "group":
			err = n.unmarshalGroup(opts, d)
		case "table":
			if err = opts.Text(&n.Table); err == nil {
				err = wrapErr(d, source.NFLogConfig{Table: n.Table}.Validate())
			}
		case "drop":
			err = opts.Flag(&n.Drop)
		case "protect":
			err = opts.Flag(&n.Protect)
		default:
			err = opts.Unknown(slices.Concat(passiveOptionNames, []string{"group", "table", "drop", "protect"})...)
		}
		if err != nil {
			return err
		}
	}
	if _, err := n.KnockSource(); err != nil {
		return Placed(n.At, err)
	}
	return nil
}

func (n *NFLogSource) unmarshalGroup(opts *Options, d *caddyfile.Dispenser) error {
	var text string
	if err := opts.Text(&text); err != nil {
		return err
	}
	group, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return d.Errf("option group: %q is not a number from 0 to 65535", text)
	}
	number := uint16(group)
	n.Group = &number
	return nil
}

// Interface guards
var (
	_ SourceConverter       = (*NFLogSource)(nil)
	_ caddyfile.Unmarshaler = (*NFLogSource)(nil)
)
