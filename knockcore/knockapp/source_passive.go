// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// PassiveOptions are those that the sources nflog and packet have in common. Both
// read packets on their way to this host, whether a port is open, closed or
// dropped by a firewall, and send nothing.
type PassiveOptions struct {
	// Ports lists where knocks by datagram go, such as `udp/62202`; ranges are
	// possible. The ports of services, to which crafted SYNs go, and of doors need
	// not be listed. Default: none, so that only SYNs and doors count.
	Ports []string `json:"ports,omitempty"`

	// Methods lists what is accepted: udp-passive, udp-passive-seq, tcp-syn,
	// tcp-syn-seq, pyknock, fwknop, port-sequence. Default: all of these that are
	// enabled; those by datagram only if there are ports for them.
	Methods []string `json:"methods,omitempty"`

	// Interfaces lists the devices by which packets come in; a trailing * stands for
	// any ending. They may come and go. Default: all but loopback.
	Interfaces []string `json:"interfaces,omitempty"`

	// Target lists addresses and prefixes besides this host's own to which knocks may
	// go, as they pass by here. Default: none.
	Target []string `json:"target,omitempty"`

	// SequenceLength is how many parts a `udp-passive-seq` knock (2 to 8) or a
	// `tcp-syn-seq` knock (2 to 5) has, as the clients are configured. Default: 3.
	SequenceLength int `json:"sequence_length,omitempty"`

	// SequenceWindow is how long the parts may take to come. Default: 10s.
	SequenceWindow caddy.Duration `json:"sequence_window,omitempty"`

	// SYNSlot is how long a crafted SYN is the same, in whole seconds, as the clients
	// are configured. Those made for the slot before or after count, too; one knock of
	// a client counts in each. Default: 30s.
	SYNSlot caddy.Duration `json:"syn_slot,omitempty"`

	// LegacySYN also accepts `tcp-syn-seq` as libknock's predecessor sent it: to
	// changing ports, so that the SYNs to all ports from 1024 to 65534 are looked at.
	// Default: false.
	LegacySYN bool `json:"legacy_syn,omitempty"`

	// MaxFrame is the greatest libknock frame in bytes that is looked at, 2048 at
	// most. Default: 1024, which is libknock's own.
	MaxFrame int `json:"max_frame,omitempty"`

	// PyknockWindow is by how much the time in a pyknock datagram may differ from this
	// host's clock. Default: 60s.
	PyknockWindow caddy.Duration `json:"pyknock_window,omitempty"`

	// PyknockServices lists the services that a pyknock datagram is for, which names
	// none itself. Default: everything that the client may reach.
	PyknockServices []string `json:"pyknock_services,omitempty"`

	// FwknopWindow is by how much the time in a fwknop packet may differ from this
	// host's clock, in whole seconds. Default: 120s.
	FwknopWindow caddy.Duration `json:"fwknop_window,omitempty"`

	// Queue is how many packets wait at most to be looked at, and as many again from
	// addresses that knocked successfully lately, which go first. What comes beyond
	// that is dropped and counted. Default: 4096.
	Queue int `json:"queue,omitempty"`

	// Workers is how many packets are looked at at the same time. Default: the number
	// of processors, at least 4.
	Workers int `json:"workers,omitempty"`

	// At is where the source stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

func (o *PassiveOptions) place() string { return o.At }

var (
	// passiveDatagrams are the methods that need a UDP port to watch.
	passiveDatagrams = knockcore.NewMethodSet(knockcore.MethodUDPPassive, knockcore.MethodUDPPassiveSeq, knockcore.MethodPyknock, knockcore.MethodFwknop)
	passiveMethods   = passiveDatagrams | synMethods | knockcore.NewMethodSet(knockcore.MethodPortSequence)
)

// source makes what the options amount to, without inputs.
func (o *PassiveOptions) source() (*SourceConfig, error) {
	methods, err := parseMethods(o.Methods)
	if err != nil {
		return nil, err
	}
	s := &SourceConfig{
		Passive: true, Methods: passiveMethods, Interfaces: o.Interfaces,
		Dispatch: source.DispatchConfig{
			Methods: methods, MaxFrame: o.MaxFrame, PyknockWindow: time.Duration(o.PyknockWindow),
			PyknockServices: o.PyknockServices, FwknopWindow: time.Duration(o.FwknopWindow),
		},
		Sequence: wire.UDPSequenceConfig{Length: o.SequenceLength, Window: time.Duration(o.SequenceWindow)},
		Queue:    o.Queue, Workers: o.Workers,
	}
	for _, text := range o.Ports {
		ports, err := knockcore.ParsePortRange(text)
		if err != nil {
			return nil, err
		}
		if ports.Protocol != knockcore.UDP {
			return nil, fmt.Errorf("ports %q: only udp ports are listed here; SYNs to the ports of services are seen without", text)
		}
		s.Dispatch.KnockPorts = append(s.Dispatch.KnockPorts, ports)
		s.Watch = append(s.Watch, source.FilterTest{Ports: ports})
	}
	if len(o.Ports) == 0 {
		if wrong := methods & passiveDatagrams; wrong != 0 {
			return nil, fmt.Errorf("method %v needs a port to which the datagrams go: add `ports udp/62202`, say", wrong.Methods()[0])
		}
		s.Methods &^= passiveDatagrams
	}
	for _, name := range o.Interfaces {
		if err := nft.ValidateInterface(name); err != nil {
			return nil, err
		}
	}
	if s.Targets, err = ParsePrefixes(o.Target); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	slot := time.Duration(o.SYNSlot)
	switch {
	case slot < 0 || slot%time.Second != 0:
		return nil, errors.New("syn_slot has whole seconds, such as 30s")
	case o.Queue < 0 || o.Workers < 0:
		return nil, errors.New("queue and workers must not be negative")
	}
	s.Dispatch.SYN = wire.SYNIndexConfig{
		SlotSeconds: int64(slot / time.Second), SeqSlotSeconds: int64(slot / time.Second), Legacy: o.LegacySYN,
	}
	if o.SequenceLength <= wire.MaxSYNSequence {
		s.Dispatch.SYN.Length = o.SequenceLength
	} else if methods == 0 {
		s.Methods &^= knockcore.NewMethodSet(knockcore.MethodTCPSYNSeq) // no such knock has so many parts
	} else if methods.Has(knockcore.MethodTCPSYNSeq) {
		return nil, fmt.Errorf("a tcp-syn-seq knock has %d to %d parts, not %d", wire.MinSYNSequence, wire.MaxSYNSequence, o.SequenceLength)
	}
	return s, nil
}

// passiveOptionNames are the options of both sources, for messages.
var passiveOptionNames = []string{
	"ports", "methods", "interfaces", "target", "sequence", "syn_slot", "legacy_syn", "max_frame", "pyknock_window",
	"pyknock_services", "fwknop_window", "queue", "workers",
}

// unmarshal reads the option at hand, if it is one of these.
func (o *PassiveOptions) unmarshal(opts *Options, d *caddyfile.Dispenser) (known bool, err error) {
	switch d.Val() {
	case "ports":
		err = opts.List(&o.Ports)
	case "methods":
		err = unmarshalMethods(opts, d, &o.Methods)
	case "interfaces":
		err = opts.List(&o.Interfaces)
	case "target":
		err = opts.List(&o.Target)
	case "sequence":
		u := UDPSource{}
		if err = u.unmarshalSequence(opts, d); err == nil {
			o.SequenceLength, o.SequenceWindow = u.SequenceLength, u.SequenceWindow
		}
	case "syn_slot":
		err = opts.Duration(&o.SYNSlot)
	case "legacy_syn":
		err = opts.Flag(&o.LegacySYN)
	case "max_frame":
		err = opts.Positive(&o.MaxFrame)
	case "pyknock_window":
		err = opts.Duration(&o.PyknockWindow)
	case "pyknock_services":
		err = opts.List(&o.PyknockServices)
	case "fwknop_window":
		err = opts.Duration(&o.FwknopWindow)
	case "queue":
		err = opts.Positive(&o.Queue)
	case "workers":
		err = opts.Positive(&o.Workers)
	default:
		return false, nil
	}
	if err == nil {
		if _, bad := o.source(); bad != nil && !isIncomplete(o) {
			err = d.WrapErr(bad)
		}
	}
	return true, err
}

// isIncomplete reports whether what is missing may stand further down.
func isIncomplete(o *PassiveOptions) bool { return len(o.Ports) == 0 }
