// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// MaxPayload is how much of a payload a source delivers, in bytes. Longer ones
// arrive cut to one byte more, which makes them too long for every kind of knock.
const MaxPayload = 2048

// ErrNotHere is wrapped by errors that say that this host lacks what a source
// needs, such as IPv6.
var ErrNotHere = errors.New("not available on this host")

// Packet is what a source delivers.
type Packet struct {
	// At is when it arrived, by the monotonic clock.
	At time.Time
	// From and To are its ends. IPv4 is never in its IPv6-mapped form. The address
	// of To is not valid where the operating system does not tell it.
	From, To netip.AddrPort
	// Protocol is UDP or, from passive sources, TCP.
	Protocol knockcore.Protocol
	// TCPFlags is the flag byte of a TCP header: FIN to URG, and two more bits.
	TCPFlags uint8
	// TCP is where a crafted SYN carries its tag; Seq is that of every TCP packet.
	// HasTSval says that there is a timestamp option.
	TCP      wire.SYNFields
	HasTSval bool
	// Payload is what the packet carries, cut as MaxPayload says; nothing of TCP.
	Payload []byte
}

// copyFrom makes p a copy of o, in the memory that p's payload has.
func (p *Packet) copyFrom(o *Packet) {
	payload := append(p.Payload[:0], o.Payload...)
	*p = *o
	p.Payload = payload
}

// Sink takes a packet. It returns at once whatever happens, and keeps nothing of
// the packet.
type Sink func(*Packet)

// Source reads packets.
type Source interface {
	// Serve calls sink for each packet, one after the other, until ctx is done, and
	// then for those that have arrived by that time. It returns nil, or why it can't
	// go on. It is called once.
	Serve(ctx context.Context, sink Sink) error
	// Dropped is how many packets were lost before this process could read them, as
	// far as the operating system tells.
	Dropped() uint64
	// Close releases what the source holds. It is called after Serve, or instead.
	Close() error
}

// Reach is what a source sees: packets of a protocol that are addressed to an
// address and a range of ports.
type Reach struct {
	// Addr is the address; an unspecified one means all of its family, the zero Addr
	// means all.
	Addr  netip.Addr
	Ports knockcore.PortRange
	// Methods are those of the knocks that the source accepts.
	Methods knockcore.MethodSet
	// Socket says that the source binds the address, so that no other one can.
	Socket bool
}

// Overlaps reports whether a packet may come by both ways and be taken for a
// knock of the same method twice, or whether both want to bind one address.
func (r Reach) Overlaps(o Reach) bool {
	return r.Ports.Protocol == o.Ports.Protocol && r.Ports.Low <= o.Ports.High && o.Ports.Low <= r.Ports.High &&
		addrsOverlap(r.Addr, o.Addr) && (r.Methods&o.Methods != 0 || r.Socket && o.Socket)
}

func addrsOverlap(a, b netip.Addr) bool {
	if !a.IsValid() || !b.IsValid() {
		return true
	}
	return a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified() || a == b)
}
