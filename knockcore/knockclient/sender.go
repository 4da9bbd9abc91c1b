// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// ErrNotSent means that a knock could be sent to none of the server's addresses.
var ErrNotSent = errors.New("no knock was sent")

// Resolver finds the addresses of a host: *net.Resolver, or your own.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Sender sends knocks. The zero value sends to all addresses of a host.
type Sender struct {
	// Network is udp, or udp4 or udp6 for one family only; "" means udp.
	Network string
	// BothFamilies makes it an error if not at least one address of each family
	// was knocked at.
	BothFamilies bool
	// Source is the local address to send from; the zero value leaves it to the
	// system. Server addresses of the other family are skipped then.
	Source netip.Addr
	// Resolver finds the addresses; nil means net.DefaultResolver.
	Resolver Resolver
}

// Session is a session ID that prints as hexadecimal.
type Session []byte

// String is the ID in hexadecimal.
func (s Session) String() string { return hex.EncodeToString(s) }

// MarshalText is String.
func (s Session) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Sent tells what became of a knock.
type Sent struct {
	// Session is the session ID inside, for the frame that follows; nil if the
	// method has none.
	Session Session
	// Deliveries are the server's addresses, in the order of the resolver.
	Deliveries []Delivery
}

// Delivery is one address of the server.
type Delivery struct {
	// To is where the datagrams went.
	To netip.AddrPort
	// Datagrams is how many left this machine. Nobody answers to them.
	Datagrams int
	// Err is why the address was skipped, or given up, nil if it was not.
	Err error
}

// Addrs lists the addresses that were knocked at.
func (s *Sent) Addrs() []netip.Addr {
	var list []netip.Addr
	for _, d := range s.Deliveries {
		if d.Err == nil {
			list = append(list, d.To.Addr())
		}
	}
	return list
}

// SendUDP sends one knock with the zero Sender.
func SendUDP(ctx context.Context, host string, port uint16, k Knock) (*Sent, error) {
	return new(Sender).Send(ctx, host, port, k)
}

// Send knocks at every address of the host; port is the UDP port, 0 means the
// method's default; crafted SYNs go to the protected ports. Addresses that can't be reached from here are skipped. The
// parts of a sequence leave in the order of their index.
//
// Nothing is ever answered, so that no error means only that the datagrams left.
// If there is no address at which the whole knock was sent, the error wraps
// ErrNotSent. What was sent is returned also along with an error, unless the
// knock is not valid or the host has no address.
func (s *Sender) Send(ctx context.Context, host string, port uint16, k Knock) (*Sent, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	if port == 0 {
		port = k.udpPort()
	}
	if k.isSYN() {
		port = k.Ports[0].Low
	}
	addrs, err := s.resolve(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	sent := new(Sent)
	if k.method() == knockcore.MethodPortSequence {
		if sent.Deliveries, err = s.step(ctx, addrs, &k); sent.Deliveries == nil {
			return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
	} else {
		v := volley{knock: k, session: k.newSession()}
		defer v.close()
		for _, addr := range addrs {
			v.aim(ctx, s.Source, netip.AddrPortFrom(addr, port))
		}
		err = v.fire(ctx)
		sent.Session = v.session
		for _, t := range v.targets {
			sent.Deliveries = append(sent.Deliveries, t.Delivery)
		}
	}
	var skipped error
	var sent4, sent6 bool
	for _, t := range sent.Deliveries {
		switch {
		case t.Err != nil:
			skipped = errors.Join(skipped, fmt.Errorf("%v: %w", t.To, t.Err))
		case t.To.Addr().Is4():
			sent4 = true
		default:
			sent6 = true
		}
	}
	switch {
	case err != nil:
		return sent, fmt.Errorf("knocking at %s: %w", host, err)
	case !sent4 && !sent6:
		return sent, fmt.Errorf("%w to %s: %w", ErrNotSent, host, skipped)
	case s.BothFamilies && !(sent4 && sent6):
		return sent, fmt.Errorf("%w over both IPv4 and IPv6: %s was reached over one of them only", ErrNotSent, host)
	default:
		return sent, nil
	}
}

// resolve finds the addresses of the host, each once.
func (s *Sender) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	network := "ip"
	switch s.Network {
	case "", "udp":
	case "udp4":
		network = "ip4"
	case "udp6":
		network = "ip6"
	default:
		return nil, fmt.Errorf("%q is no network of datagrams; expect udp, udp4 or udp6", s.Network)
	}
	var resolver Resolver = net.DefaultResolver
	if s.Resolver != nil {
		resolver = s.Resolver
	}
	found, err := resolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	seen := make(map[netip.Addr]bool)
	for _, addr := range found {
		if addr = addr.Unmap(); !seen[addr] {
			seen[addr] = true
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("host %s has no address of network %s", host, network)
	}
	return addrs, nil
}
