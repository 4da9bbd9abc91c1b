// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

func init() { caddy.RegisterModule(new(UDPSource)) }

// UDPSource takes knocks by datagram on sockets of its own: libknock's `udp` and
// `udp-seq`, `pyknock` and `fwknop`. Nothing is ever answered. A socket stays open
// over reloads, which lose no datagram.
type UDPSource struct {
	// Listen lists the addresses: `:62201` (all of this host, IPv4 and IPv6),
	// `192.0.2.1:62201`, `[2001:db8::1]:62201`; `0.0.0.0` and `[::]` stand for all of
	// one family. Placeholders are replaced. Default: `:62201`.
	Listen []string `json:"listen,omitempty"`

	// Methods lists what is accepted: udp, udp-seq, pyknock, fwknop. Default: all of
	// these that are enabled.
	Methods []string `json:"methods,omitempty"`

	// SequenceLength is how many parts a `udp-seq` knock has, 2 to 8, as the clients
	// are configured. Default: 3.
	SequenceLength int `json:"sequence_length,omitempty"`

	// SequenceWindow is how long the parts may take to come. Default: 10s.
	SequenceWindow caddy.Duration `json:"sequence_window,omitempty"`

	// MaxFrame is the greatest libknock frame in bytes that is looked at, 2048 at
	// most. Default: 1024, which is libknock's own.
	MaxFrame int `json:"max_frame,omitempty"`

	// PyknockWindow is by how much the time in a pyknock datagram may differ from this
	// host's clock. Default: 60s.
	PyknockWindow caddy.Duration `json:"pyknock_window,omitempty"`

	// PyknockServices lists the services that a pyknock datagram is for, which names
	// none itself. The client must be allowed all of them. Default: everything that
	// the client may reach.
	PyknockServices []string `json:"pyknock_services,omitempty"`

	// FwknopWindow is by how much the time in a fwknop packet may differ from this
	// host's clock, in whole seconds. Default: 120s.
	FwknopWindow caddy.Duration `json:"fwknop_window,omitempty"`

	// Queue is how many datagrams wait at most to be looked at, and as many again
	// from addresses that knocked successfully lately, which go first. What comes
	// beyond that is dropped and counted. Default: 4096.
	Queue int `json:"queue,omitempty"`

	// Workers is how many datagrams are looked at at the same time. Default: the
	// number of processors, at least 4.
	Workers int `json:"workers,omitempty"`

	// At is where the source stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

func (u *UDPSource) place() string { return u.At }

// defaultUDP is where knocks are expected if nothing is said: fwknop's port.
const defaultUDP = ":62201"

// udpMethods are the methods that come by a socket.
var udpMethods = knockcore.NewMethodSet(knockcore.MethodUDP, knockcore.MethodUDPSeq, knockcore.MethodPyknock, knockcore.MethodFwknop)

// CaddyModule returns the Caddy module information.
func (*UDPSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.sources.udp", New: func() caddy.Module { return new(UDPSource) }}
}

// KnockSource implements SourceConverter.
func (u *UDPSource) KnockSource() (*SourceConfig, error) {
	methods, err := parseMethods(u.Methods)
	if err != nil {
		return nil, fmt.Errorf("source udp: %w", err)
	}
	s := &SourceConfig{
		Methods: udpMethods,
		Dispatch: source.DispatchConfig{
			Methods: methods, MaxFrame: u.MaxFrame, PyknockWindow: time.Duration(u.PyknockWindow),
			PyknockServices: u.PyknockServices, FwknopWindow: time.Duration(u.FwknopWindow),
		},
		Sequence: wire.UDPSequenceConfig{Length: u.SequenceLength, Window: time.Duration(u.SequenceWindow)},
		Queue:    u.Queue, Workers: u.Workers,
	}
	if u.Queue < 0 || u.Workers < 0 {
		return nil, fmt.Errorf("source udp: queue and workers must not be negative")
	}
	listen := u.Listen
	if len(listen) == 0 {
		listen = []string{defaultUDP}
	}
	for _, text := range listen {
		addrs, err := parseListen(text)
		if err != nil {
			return nil, fmt.Errorf("source udp: %w", err)
		}
		for _, addr := range addrs {
			s.Inputs = append(s.Inputs, SourceInput{
				Key: "udp " + addr.String(), Label: text, Optional: len(addrs) > 1,
				Reach: source.Reach{
					Addr: addr.Addr(), Ports: knockcore.PortRange{Protocol: knockcore.UDP, Low: addr.Port(), High: addr.Port()}, Socket: true,
				},
				Open: func(others []source.Source) (source.Source, error) {
					var near []*source.UDP
					for _, o := range others {
						if socket, ok := o.(*source.UDP); ok {
							near = append(near, socket)
						}
					}
					return source.ListenUDP(addr, near...)
				},
			})
		}
	}
	return s, nil
}

// parseListen reads an address to listen on. One without a host stands for both
// families.
func parseListen(text string) ([]netip.AddrPort, error) {
	expanded, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return nil, err
	}
	address := strings.TrimPrefix(expanded, "udp/")
	host, port, found := strings.Cut(address, ":")
	if found && host == "" {
		address = "0.0.0.0:" + port
	}
	addr, err := netip.ParseAddrPort(address)
	if err != nil || addr.Port() == 0 || addr.Addr().Is4In6() {
		return nil, fmt.Errorf("%q is not an address and port to listen on; expect :62201, 192.0.2.1:62201 or [2001:db8::1]:62201", text)
	}
	if found && host == "" {
		return []netip.AddrPort{addr, netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port())}, nil
	}
	return []netip.AddrPort{addr}, nil
}

// UnmarshalCaddyfile reads the source. Syntax:
//
//	udp [<address...>] {
//		methods          <method...>
//		sequence         <length> [<window>]
//		max_frame        <bytes>
//		pyknock_window   <duration>
//		pyknock_services <name...>
//		fwknop_window    <duration>
//		queue            <count>
//		workers          <count>
//	}
func (u *UDPSource) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the source's name
	u.At = Place(d)
	u.Listen = d.RemainingArgs()
	for _, text := range u.Listen {
		if isLiteral(text) {
			if _, err := parseListen(text); err != nil {
				return d.WrapErr(err)
			}
		}
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "methods":
			err = unmarshalMethods(opts, d, &u.Methods)
		case "sequence":
			err = u.unmarshalSequence(opts, d)
		case "max_frame":
			err = opts.Positive(&u.MaxFrame)
		case "pyknock_window":
			err = opts.Duration(&u.PyknockWindow)
		case "pyknock_services":
			err = opts.List(&u.PyknockServices)
		case "fwknop_window":
			err = opts.Duration(&u.FwknopWindow)
		case "queue":
			err = opts.Positive(&u.Queue)
		case "workers":
			err = opts.Positive(&u.Workers)
		default:
			err = opts.Unknown("methods", "sequence", "max_frame", "pyknock_window", "pyknock_services", "fwknop_window", "queue", "workers")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshalSequence reads `sequence <length> [<window>]`.
func (u *UDPSource) unmarshalSequence(opts *Options, d *caddyfile.Dispenser) error {
	if err := opts.Once(); err != nil {
		return err
	}
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.Errf("option sequence takes the number of parts and, if need be, the time they may take, such as `sequence 3 10s`")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < wire.MinUDPSequence || n > wire.MaxUDPSequence {
		return d.Errf("option sequence: %q is not a number of parts from 2 to 8", args[0])
	}
	u.SequenceLength = n
	if len(args) == 2 {
		window, err := caddy.ParseDuration(args[1])
		if err != nil || window <= 0 {
			return d.Errf("option sequence: %q is not a positive duration such as 10s", args[1])
		}
		u.SequenceWindow = caddy.Duration(window)
	}
	_, err = wire.NewUDPSequences(wire.UDPSequenceConfig{Length: u.SequenceLength, Window: time.Duration(u.SequenceWindow)})
	return wrapErr(d, err)
}

// Interface guards
var (
	_ SourceConverter       = (*UDPSource)(nil)
	_ caddyfile.Unmarshaler = (*UDPSource)(nil)
)
