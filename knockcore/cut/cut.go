// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package cut ends established flows when the grant that let them in has ended.
//
// An Engine is told of a prefix and a service. It looks through conntrack and the
// host's TCP sockets for flows from there to the service's ports, leaves out those
// that somebody else still holds (another grant for the address, an admitted
// stream), and ends the rest exactly: sockets with SOCK_DESTROY, which resets the
// connection, and conntrack entries by their tuple, which takes the destination
// NAT of published ports away. Marks are not used: others own them.
//
// Two things make a cut last. The firewall has to drop packets without a window
// (knockcore/nft does, for services that cut), or else a forwarded flow makes
// itself a new entry. And only what is for this host, or for one of the service's
// destinations, is looked at: flows that pass by to the same ports elsewhere are
// nobody's business.
//
// Requests that come while a look is under way are answered by the next look,
// together, so that a thousand grants that end at once cost a few looks.
package cut

import (
	"errors"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// The things that may be missing, by errors.Is.
var (
	// ErrConntrack means that forwarded flows, such as those to published ports, and
	// UDP flows are not ended.
	ErrConntrack = errors.New("conntrack cannot be asked")
	// ErrSockets means that connections to the host itself are not reset.
	ErrSockets = errors.New("sockets cannot be closed from outside (SOCK_DESTROY)")
)

// Config describes an Engine.
type Config struct {
	// Holds reports whether a flow of the service is to live on. It is called on the
	// engine's goroutine.
	Holds func(service string, remote netip.AddrPort) bool
	// Done, if set, is told of each look, on the engine's goroutine.
	Done func(Result)
	// NetNS is a file descriptor of the network namespace to work in; 0 means that
	// of the process.
	NetNS int
}

// Result is what one look ended.
type Result struct {
	// Sockets and Entries are how many TCP sockets were reset and conntrack entries
	// deleted.
	Sockets, Entries int
	// Took is how long it took, from the oldest request on.
	Took time.Duration
	// Err is what could not be done.
	Err error
}

// request is what one call of Cut asks for.
type request struct {
	prefix  netip.Prefix
	service *knockcore.Service
}

// wants reports whether the request is about a flow from remote to the port.
func (r *request) wants(proto knockcore.Protocol, remote netip.Addr, port uint16) bool {
	return r.prefix.Contains(remote) && r.service.Has(proto, port)
}
