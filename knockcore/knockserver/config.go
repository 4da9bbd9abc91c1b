// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// Config says who is let in and how. Only Clients must be set.
type Config struct {
	// Clients are those who may knock; they may change at run time.
	Clients Resolver

	// Service names what the connections are for; a client may reach it if it
	// lists the name or may reach all. "" means that the program has only one
	// service, which every client may reach, whatever services it lists.
	Service string

	// Port is the port that frames must name: the one that clients dial, where it is
	// not the local port of the connection (NAT, a forwarded port, a unix socket).
	// 0 means the local port.
	Port uint16

	// Methods are the frames that are accepted; 0 means tcp-auth-envelope-v2 alone.
	// The older frame can be recognised on the wire and must be named.
	Methods knockcore.MethodSet

	// HintNone expects envelopes without a hint of their client, instead of with
	// one, as the clients are set. Every secret is tried in every size: for few
	// clients only, see MaxAttempts.
	HintNone bool

	// Buckets are the sizes of envelopes that are accepted, in bytes, ascending; none
	// means all.
	Buckets []int

	// MaxAttempts bounds the decryptions tried for one connection; 0 means 64.
	MaxAttempts int

	// Wait is how long a connection may take to deliver its frame; 0 means
	// DefaultWait.
	Wait time.Duration

	// RequireSession lets a frame in only behind a knock with its session ID, one
	// frame for each knock. The program gets such knocks from elsewhere, mostly as
	// datagrams, and hands them to Server.Gatekeeper().Admit.
	RequireSession bool

	// SessionWait is how long a frame waits for a knock that is on its way; 0 means
	// knockcore.DefaultSessionWait, negative not at all.
	SessionWait time.Duration

	// TimeWindow is by how much the time in a frame may differ from ours, either
	// way; 0 means knockcore.DefaultWindow.
	TimeWindow time.Duration

	// Store remembers spent nonces, so that no frame is accepted twice. Nil means a
	// knockcore.MemoryStore of the server's own: after a restart of the program,
	// frames of the last TimeWindow could be accepted once more. Servers for the
	// same port and clients must share one.
	Store knockcore.Store

	// Observer is told of every connection that is let in or refused.
	Observer knockcore.Observer

	// Policy, if set, is asked with the remote address before anything is read;
	// false closes the connection. It is the place for limits and bans of addresses.
	Policy func(remote net.Addr) bool

	// OnRefused, if set, gets the connections that are not let in, with all their
	// bytes, and closes them: the place for a cover. err wraps a knockcore.Reason.
	// Behind a Listener it is called on a goroutine of the connection, which is
	// closed when the listener is. By default strangers are closed: at once by
	// Server.Auth, all at Wait after they came by a Listener.
	OnRefused func(conn net.Conn, err error)

	// MaxPending bounds the undecided connections. When there are more, the one that
	// has waited longest is refused at once. 0 means DefaultPending().
	MaxPending int

	// MaxStrangers bounds the refused connections that a Listener has not closed yet;
	// others are closed at once. 0 means DefaultPending().
	MaxStrangers int

	// Now is the clock for frames; nil means time.Now.
	Now func() time.Time
}

// oneService is the name of the service of a program that gives none.
const oneService = "default"

// validate reports the first thing wrong that does not depend on the clients.
func (c *Config) validate() error {
	if c.Clients == nil {
		return errors.New("nobody could be let in: set Clients, for example to what NewClients returns")
	}
	if c.Service != "" {
		if err := knockcore.ValidateID(c.Service); err != nil {
			return fmt.Errorf("checking the service: %w", err)
		}
	}
	for name, d := range map[string]time.Duration{"Wait": c.Wait, "TimeWindow": c.TimeWindow} {
		if d < 0 {
			return fmt.Errorf("%s is %v; it must not be negative", name, d)
		}
	}
	for name, n := range map[string]int{"MaxPending": c.MaxPending, "MaxStrangers": c.MaxStrangers} {
		if n < 0 {
			return fmt.Errorf("%s is %d; it must not be negative", name, n)
		}
	}
	return nil
}

// gatekeeper makes the gatekeeper of the configuration.
func (c *Config) gatekeeper(ring *knockcore.Keyring) (*knockcore.Gatekeeper, error) {
	service := &knockcore.Service{
		Name: c.Service, RequireSession: c.RequireSession,
		Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 1, High: 65535}},
	}
	if service.Name == "" {
		service.Name = oneService
	}
	if c.Port != 0 {
		service.Ports[0].Low, service.Ports[0].High = c.Port, c.Port
	}
	return knockcore.NewGatekeeper(knockcore.Config{
		Keyring: ring, Services: []*knockcore.Service{service},
		Window: c.TimeWindow, SessionWait: c.SessionWait, Observer: c.Observer, Now: c.Now,
	}, knockcore.NewState(c.Store, 0))
}

// checker makes the checker of the configuration.
func (c *Config) checker(gate *knockcore.Gatekeeper) (*Checker, error) {
	frames := wire.StreamConfig{
		Methods: c.Methods, HintNone: c.HintNone, Buckets: c.Buckets, MaxAttempts: c.MaxAttempts, Seen: c.Store.Seen,
	}
	if frames.Methods == 0 {
		frames.Methods = knockcore.NewMethodSet(knockcore.MethodEnvelopeV2)
	}
	if err := frames.Validate(gate.Keyring()); err != nil {
		return nil, err
	}
	return &Checker{
		Frames: frames, Port: c.Port, Service: gate.Services()[0].Name, Wait: c.Wait, Pending: NewPending(c.MaxPending),
	}, nil
}
