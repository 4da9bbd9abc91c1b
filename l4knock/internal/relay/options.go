// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// DefaultDialTimeout is how long one upstream may take to answer a dial.
const DefaultDialTimeout = 3 * time.Second

// Upstream is an address to relay to, in the words of [net.Dial].
type Upstream struct {
	// Network is "tcp", "tcp4", "tcp6" or "unix"; "" means "tcp".
	Network string
	// Address is "host:port", or the path of a unix socket.
	Address string
}

// String is network/address, as Caddy writes addresses.
func (u Upstream) String() string { return u.network() + "/" + u.Address }

func (u Upstream) network() string {
	if u.Network == "" {
		return "tcp"
	}
	return u.Network
}

// Options says how to reach the upstream and how to relay. The zero value relays
// and sets nothing; it has nothing to dial.
type Options struct {
	// Upstreams are dialled in this order until one answers.
	Upstreams []Upstream
	// DialTimeout bounds the dial of each upstream, name look-up included; 0 means
	// [DefaultDialTimeout].
	DialTimeout time.Duration

	// ProxyProtocol is the version of the PROXY protocol header that goes to the
	// upstream first: 1, 2, or 0 for none.
	ProxyProtocol int
	// Client and Service go into a version 2 header as [TLVClient] and
	// [TLVService], unless empty. Together they must stay below 65,000 bytes.
	Client, Service string
	// Source and Destination are the addresses in the header; nil means the remote
	// and the local address of the downstream connection.
	Source, Destination net.Addr

	// KeepAlive is after how much silence TCP probes a peer, on both connections;
	// 0 leaves them as they are, less than 0 turns probing off.
	KeepAlive time.Duration
	// UserTimeout is how long a TCP peer may leave data unacknowledged, on both
	// connections, in steps of 1 ms; 0 leaves them as they are. Linux only.
	UserTimeout time.Duration
	// IdleTimeout ends a relay when neither direction has moved a byte for so long;
	// 0 means never. One byte in one direction keeps both alive, and so does a peer
	// that still takes in what was sent to it (seen on Linux only).
	IdleTimeout time.Duration

	// OnDone, if set, gets the final Stats before Run returns.
	OnDone func(Stats)
}

// Validate says what of o cannot work. It doesn't ask for upstreams.
func (o *Options) Validate() error {
	if o.ProxyProtocol < 0 || o.ProxyProtocol > 2 {
		return fmt.Errorf("PROXY protocol version %d: expect 1, 2, or 0 for none", o.ProxyProtocol)
	}
	for name, d := range map[string]time.Duration{
		"dial timeout": o.DialTimeout, "user timeout": o.UserTimeout, "idle timeout": o.IdleTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("%s %v: expect no negative duration", name, d)
		}
	}
	for _, u := range o.Upstreams {
		switch u.network() {
		case "tcp", "tcp4", "tcp6", "unix":
		default:
			return fmt.Errorf("upstream %s: expect network tcp, tcp4, tcp6 or unix", u)
		}
		if u.Address == "" {
			return errors.New("upstream without an address")
		}
	}
	return nil
}
