// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Opening is a knock that goes before a connection: see Dialer.Opening.
type Opening struct {
	// Knock is what is sent. If Ports is empty, it is the protected port, of TCP;
	// if ClientID or Secret is missing, they are those of the Dialer's Config
	// (the secret only for libknock's datagrams).
	Knock Knock
	// Sender sends it. The connection comes from its Source too, if it has one and
	// the Dialer's Base is a net.Dialer: what the knock opens is open for that address.
	Sender Sender
	// Host is where to knock; "" means the host that is dialled. Another host
	// than that says nothing about where to connect to.
	Host string
	// Port is the UDP port; 0 means the method's default.
	Port uint16
	// NoSession keeps the session ID out of the frame that follows, for servers
	// that do not bind the two.
	NoSession bool
	// NoFrame makes the connection one without a frame: for services that a knock
	// alone opens.
	NoFrame bool
	// Timeout bounds connecting after the knock; 0 means 10 seconds.
	Timeout time.Duration
	// Sent, if set, is told of each knock; Attempt of each attempt to connect.
	Sent    func(*Sent)
	Attempt func(to netip.AddrPort)
}

// DefaultOpenTimeout bounds connecting after a knock.
const DefaultOpenTimeout = 10 * time.Second

// open knocks and connects. It returns the session ID for the frame.
func (o *Opening) open(ctx context.Context, base ContextDialer, network, address string, cfg *Config) (net.Conn, []byte, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, fmt.Errorf("knocking: %w", err)
	}
	port, err := portOf(ctx, network, address)
	if err != nil {
		return nil, nil, err
	}
	protected := cfg.Port
	if protected == 0 {
		protected = port
	}
	knock := o.Knock.forTarget(cfg, protected)
	at, sender := o.Host, o.Sender
	if at == "" {
		at = host
	}
	if sender.Network == "" && (network == "tcp4" || network == "tcp6") {
		sender.Network = "udp" + network[len("tcp"):]
	}
	sent, err := sender.Send(ctx, at, o.Port, knock)
	if sent != nil && o.Sent != nil {
		o.Sent(sent)
	}
	if err != nil {
		return nil, nil, err
	}
	addrs := sent.Addrs()
	if at != host { // what was knocked at is not what is connected to
		if addrs, err = (&Sender{Network: sender.Network, Resolver: sender.Resolver}).resolve(ctx, host); err != nil {
			return nil, nil, dialNameError(network, host, port, err)
		}
	}
	if plain, ok := base.(*net.Dialer); ok && sender.Source.IsValid() && plain.LocalAddr == nil && !knock.Address.IsValid() {
		from := *plain
		from.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(sender.Source.Unmap(), 0))
		base = &from
	}
	d := Staggered{Base: base, Timeout: o.Timeout, Attempt: o.Attempt}
	if d.Timeout == 0 {
		d.Timeout = DefaultOpenTimeout
	}
	conn, err := d.Dial(ctx, network, addrs, port)
	if err != nil || o.NoSession {
		return conn, nil, err
	}
	return conn, sent.Session, nil
}

func dialNameError(network, host string, port uint16, err error) error {
	return &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%s: %w", net.JoinHostPort(host, strconv.Itoa(int(port))), err)}
}
