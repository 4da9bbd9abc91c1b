// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// DatagramMethods are the methods that a Dispatcher knows.
var DatagramMethods = []knockcore.Method{
	knockcore.MethodUDP, knockcore.MethodUDPSeq, knockcore.MethodUDPPassive, knockcore.MethodUDPPassiveSeq,
	knockcore.MethodFwknop, knockcore.MethodPyknock,
}

// packetMethods are all methods that come in packets.
var packetMethods = knockcore.NewMethodSet(DatagramMethods...) |
	knockcore.NewMethodSet(knockcore.MethodTCPSYN, knockcore.MethodTCPSYNSeq, knockcore.MethodPortSequence)

// libknockMethods are those of libknock's datagrams.
var libknockMethods = knockcore.NewMethodSet(knockcore.MethodUDP, knockcore.MethodUDPSeq, knockcore.MethodUDPPassive, knockcore.MethodUDPPassiveSeq)

// DefaultFwknopWindow is by how much the time of a fwknop packet may differ from
// the server's clock, in both directions.
const DefaultFwknopWindow = 120 * time.Second

// DispatchConfig says which datagrams are knocks.
type DispatchConfig struct {
	// Methods are those that are accepted: of DatagramMethods, and from passive
	// sources tcp-syn and tcp-syn-seq; port-sequence is Doors'.
	Methods knockcore.MethodSet
	// MaxFrame is the greatest libknock frame in bytes, MaxPayload at most; 0 means
	// wire.DefaultMaxDatagram.
	MaxFrame int
	// Sequences puts the parts of sequence methods together. It is shared by all
	// sources and configurations that mean the same sequences; nil refuses them.
	Sequences *wire.UDPSequences
	// SYN describes tcp-syn and tcp-syn-seq; what it has in common with other methods
	// (Keyring, Methods, Ports) is filled in.
	SYN wire.SYNIndexConfig
	// SYNSequences puts the parts of tcp-syn-seq together, and is shared as Sequences
	// is.
	SYNSequences *wire.SYNSequences
	// KnockPorts, if not empty, are the UDP ports that knocks come to; what comes to
	// others is only shown to Doors.
	KnockPorts []knockcore.PortRange
	// PyknockWindow is by how much the time of a pyknock datagram may differ from
	// the clock, 0 for wire.DefaultPyknockWindow.
	PyknockWindow time.Duration
	// PyknockServices names what pyknock datagrams, which name nothing, are for.
	// Empty means everything that the client may reach.
	PyknockServices []string
	// FwknopWindow is the same for fwknop packets, in whole seconds; 0 means
	// DefaultFwknopWindow.
	FwknopWindow time.Duration
	// Doors, if set, is shown every packet of a passive source, TCP and UDP, before
	// anything else is made of it; those of one address in the order in which they
	// came. The packet is not the callee's to keep.
	Doors func(ctx context.Context, p *Packet)
}

// Validate reports the first thing wrong with the configuration, for these
// services and clients.
func (c *DispatchConfig) Validate(services []*knockcore.Service, keyring *knockcore.Keyring) error {
	switch {
	case c.Methods == 0:
		return errors.New("no method is accepted")
	case c.Methods&^packetMethods != 0:
		return fmt.Errorf("only %v come in packets", packetMethods.Methods())
	case c.MaxFrame < 0 || c.MaxFrame > MaxPayload:
		return fmt.Errorf("a frame has %d bytes at most here, not %d", MaxPayload, c.MaxFrame)
	case c.PyknockWindow < 0 || c.FwknopWindow < 0:
		return errors.New("a time window must not be negative")
	case c.FwknopWindow%time.Second != 0:
		return fmt.Errorf("fwknop_window has whole seconds, not %v: fwknop's packets tell no more", c.FwknopWindow)
	}
	if c.Methods&synMethods != 0 {
		syn := c.SYN
		syn.Keyring, syn.Methods, syn.Ports = keyring, c.Methods, ProtectedPorts(services)
		if _, err := wire.NewSYNIndex(syn, time.Now()); err != nil {
			return err
		}
	}
	for _, name := range c.PyknockServices {
		if !slices.ContainsFunc(services, func(s *knockcore.Service) bool { return s.Name == name }) {
			return fmt.Errorf("pyknock_services: there is no service %q; define it with `service %s tcp/PORT`", name, name)
		}
	}
	return nil
}

// Dispatcher verifies datagrams and asks a gatekeeper about those that are
// knocks. It is safe for concurrent use.
//
// The structure of a datagram decides which one kind of knock it may be, so that
// one kind of keyed check is made at most: 49 or 61 bytes can only be pyknock's
// (libknock's frames have at least 82), base64 text that begins as every fwknop
// packet does can't be a libknock frame, whose 28th byte is zero.
type Dispatcher struct {
	cfg    DispatchConfig
	gate   *knockcore.Gatekeeper
	frames wire.DatagramConfig
	rings  atomic.Pointer[rings]
	mu     sync.Mutex // of building rings
}

// rings are the keys of one version of the clients.
type rings struct {
	of      *knockcore.Keyring
	pyknock *wire.PyknockKeys
	fwknop  *wire.FwknopKeys
	syn     *wire.SYNIndex
}

// NewDispatcher makes a dispatcher for a valid configuration.
func NewDispatcher(cfg DispatchConfig, gate *knockcore.Gatekeeper) *Dispatcher {
	if cfg.PyknockWindow == 0 {
		cfg.PyknockWindow = wire.DefaultPyknockWindow
	}
	if cfg.FwknopWindow == 0 {
		cfg.FwknopWindow = DefaultFwknopWindow
	}
	d := &Dispatcher{cfg: cfg, gate: gate, frames: wire.DatagramConfig{
		Methods: cfg.Methods & libknockMethods, Ports: ProtectedPorts(gate.Services()), MaxFrame: cfg.MaxFrame,
	}}
	d.keys()
	return d
}

// keys returns the keys of the clients as they are now.
func (d *Dispatcher) keys() *rings {
	ring := d.gate.Keyring()
	if keys := d.rings.Load(); keys != nil && keys.of == ring {
		return keys
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ring = d.gate.Keyring()
	keys := d.rings.Load()
	if keys == nil || keys.of != ring {
		keys = &rings{ring, wire.NewPyknockKeys(ring), wire.NewFwknopKeys(ring), d.synIndex(ring)}
		d.rings.Store(keys)
	}
	return keys
}

// InOrder reports whether the packet must not be overtaken by others of its
// address: see QueueConfig.
func (d *Dispatcher) InOrder(p *Packet) bool {
	return d.cfg.Doors != nil || p.Protocol == knockcore.TCP || d.cfg.Methods.Has(knockcore.MethodPyknock) && wire.LooksLikePyknock(p.Payload)
}

// Handle decides on a packet. It is what a Queue calls.
func (d *Dispatcher) Handle(ctx context.Context, p *Packet) { _ = d.Decide(ctx, p) }

// Decide is Handle that tells what it told the gatekeeper's observer: nil if the
// knock was admitted, or is part of one whose other parts are still missing.
//
// Of TCP packets and of packets to other ports that are no knocks the observer
// hears nothing.
func (d *Dispatcher) Decide(ctx context.Context, p *Packet) error {
	if d.cfg.Doors != nil {
		d.cfg.Doors(ctx, p)
	}
	if p.Protocol == knockcore.TCP {
		err := d.syn(ctx, p)
		if limits := d.gate.Limits(); err == nil && limits != nil {
			limits.Good(p.From.Addr(), p.At)
		}
		return err
	}
	if !d.mayKnock(p) {
		return knockcore.ReasonMalformed
	}
	method := d.methodOf(p.Payload)
	var err error
	switch method {
	case knockcore.MethodNone: // only doors look at datagrams here
		return knockcore.ReasonMalformed
	case knockcore.MethodPyknock:
		err = d.pyknock(ctx, p)
	case knockcore.MethodFwknop:
		err = d.fwknop(ctx, p)
	default:
		err = d.libknock(ctx, p, method)
	}
	limits := d.gate.Limits()
	switch {
	case limits == nil:
	case err == nil:
		limits.Good(p.From.Addr(), p.At)
	case keyedCheckFailed(err):
		limits.Charge(p.From.Addr(), anyMethod, p.At)
	}
	return err
}

// mayKnock reports whether datagrams to the packet's port are knocks at all.
func (d *Dispatcher) mayKnock(p *Packet) bool {
	if len(d.cfg.KnockPorts) == 0 {
		return true
	}
	return slices.ContainsFunc(d.cfg.KnockPorts, func(r knockcore.PortRange) bool {
		return r.Low <= p.To.Port() && p.To.Port() <= r.High
	})
}

// keyedCheckFailed reports whether the packet looks like a knock, so that it cost
// a look at keys, and fits nobody's.
func keyedCheckFailed(err error) bool {
	reason := knockcore.ReasonOf(err)
	return reason == knockcore.ReasonUnknownClient || reason == knockcore.ReasonAuthFailed
}

// methodOf says what kind of knock the payload can be. What can be none at all is
// counted under the first method that is accepted.
func (d *Dispatcher) methodOf(b []byte) knockcore.Method {
	switch m := d.cfg.Methods; {
	case m.Has(knockcore.MethodPyknock) && wire.LooksLikePyknock(b):
		return knockcore.MethodPyknock
	case m.Has(knockcore.MethodFwknop) && wire.LooksLikeFwknop(b):
		return knockcore.MethodFwknop
	default:
		for _, method := range DatagramMethods {
			if m.Has(method) {
				return method
			}
		}
		return knockcore.MethodNone
	}
}

// admit asks the gatekeeper about a verified knock; it tells the observer.
func (d *Dispatcher) admit(ctx context.Context, k knockcore.Knock) error {
	wait := newPatience(ctx)
	defer wait.end()
	_, err := d.gate.Admit(wait, k)
	return err
}

// refuse tells the observer why a packet is none, or not a good one, and returns
// the error.
func (d *Dispatcher) refuse(method knockcore.Method, p *Packet, err error) error {
	d.gate.Refuse(method, p.From.Addr(), err)
	return err
}
