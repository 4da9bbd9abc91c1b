// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// State is what a prober sees of a port.
type State string

// The states of a port, as a port scanner names them.
const (
	// Open is a port that accepted the connection, or answered the datagram.
	Open State = "open"
	// Closed is a port that refused: a TCP reset, or ICMP port unreachable.
	Closed State = "closed"
	// Filtered is a port from which nothing came back.
	Filtered State = "filtered"
	// Failed is a probe that could not be made.
	Failed State = "failed"
)

// ProbeTimeout is how long [NS.Probe] waits before it calls a port filtered. A
// SYN is sent once in this time: the kernel repeats it after one second.
const ProbeTimeout = 250 * time.Millisecond

// resend is after what time without an answer a datagram is sent again.
const resend = time.Second

// patience is how long Expect waits for an answer that should come.
const patience = 20 * time.Second

// Dial opens a connection from inside the namespace; address must be an IP
// literal with a port.
func (n *NS) Dial(network, address string, timeout time.Duration) (c net.Conn, err error) {
	n.Do(func() { c, err = net.DialTimeout(network, address, timeout) })
	return c, err
}

// Listen opens a TCP listener inside the namespace that closes with the test.
func (n *NS) Listen(address string) net.Listener {
	n.t.Helper()
	var l net.Listener
	var err error
	n.Do(func() { l, err = net.Listen(ofFamily("tcp", address), address) })
	if err != nil {
		n.t.Fatalf("%s: listening on tcp %s: %v", n.Name, address, err)
	}
	n.t.Cleanup(func() { _ = l.Close() })
	return l
}

// ListenPacket opens a UDP socket inside the namespace that closes with the test.
func (n *NS) ListenPacket(address string) net.PacketConn {
	n.t.Helper()
	var p net.PacketConn
	var err error
	n.Do(func() { p, err = net.ListenPacket(ofFamily("udp", address), address) })
	if err != nil {
		n.t.Fatalf("%s: listening on udp %s: %v", n.Name, address, err)
	}
	n.t.Cleanup(func() { _ = p.Close() })
	return p
}

// ofFamily makes 0.0.0.0 an IPv4 socket, where package net would take one of both
// families as for an address without a host.
func ofFamily(network, address string) string {
	if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().Is4() {
		return network + "4"
	} else if err == nil {
		return network + "6"
	}
	return network
}

// Echo serves the address ("tcp" or "udp") until the test ends: all that comes
// goes back.
func (n *NS) Echo(network, address string) {
	n.t.Helper()
	if strings.HasPrefix(network, "udp") {
		go echoPackets(n.ListenPacket(address))
		return
	}
	go echoStreams(n.Listen(address))
}

func echoPackets(p net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		size, from, err := p.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = p.WriteTo(buf[:size], from)
		}
	}
}

func echoStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// Probe says what a port looks like from the namespace. A UDP port is open only
// if something answers.
func (n *NS) Probe(network, address string) State {
	state, err := n.ProbeFrom(network, "", address, ProbeTimeout)
	if err != nil {
		n.t.Logf("%s: probing %s %s: %v", n.Name, network, address, err)
	}
	return state
}

// Expect fails the test if the port is in another state, with the patience of
// [NS.ProbeFor].
func (n *NS) Expect(network, address string, want State) {
	n.t.Helper()
	if state := n.ProbeFor(network, address, want); state != want {
		n.t.Errorf("%s: %s %s is %s, want %s", n.Name, network, address, state, want)
	}
}

// ProbeFor is Probe with patience: where something should come back it waits longer,
// so that a busy machine does not make an open port look filtered.
func (n *NS) ProbeFor(network, address string, want State) State {
	timeout := ProbeTimeout
	if want != Filtered {
		timeout = patience
	}
	state, err := n.ProbeFrom(network, "", address, timeout)
	if err != nil {
		n.t.Logf("%s: probing %s %s: %v", n.Name, network, address, err)
	}
	return state
}

// ProbeFrom is Probe with a source address (an IP literal, or "") and a
// timeout; the error explains [Failed].
func (n *NS) ProbeFrom(network, source, address string, timeout time.Duration) (state State, err error) {
	n.Do(func() { state, err = probe(network, source, address, timeout) })
	return state, err
}

// Watch probes the port again and again, each time for at most every, until ctx
// ends or see returns false. It stays in the namespace, which costs less than
// single probes do.
func (n *NS) Watch(ctx context.Context, network, address string, every time.Duration, see func(State) bool) {
	n.Do(func() {
		for ctx.Err() == nil {
			start := time.Now()
			state, _ := probe(network, "", address, every)
			if !see(state) {
				return
			}
			time.Sleep(time.Until(start.Add(every)))
		}
	})
}

// ProbeHere probes from the namespace of the calling thread, for use in [NS.Do].
func ProbeHere(network, address string, timeout time.Duration) (State, error) {
	return probe(network, "", address, timeout)
}

func probe(network, source, address string, timeout time.Duration) (State, error) {
	d := net.Dialer{Timeout: timeout, KeepAlive: -1}
	if ip := net.ParseIP(source); ip != nil {
		d.LocalAddr = &net.TCPAddr{IP: ip}
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = &net.UDPAddr{IP: ip}
		}
	}
	c, err := d.Dial(network, address)
	if err == nil {
		defer c.Close()
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // leave no TIME_WAIT behind
			return Open, nil
		}
		// A datagram may get lost, so that it is sent again, as TCP does with a SYN.
		for end := time.Now().Add(timeout); ; {
			_ = c.SetDeadline(earlier(end, time.Now().Add(resend)))
			if _, err = c.Write([]byte("probe")); err == nil {
				_, err = c.Read(make([]byte, 16))
			}
			if !isTimeout(err) || !time.Now().Before(end) {
				break
			}
		}
	}
	switch {
	case err == nil:
		return Open, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return Closed, nil
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return Filtered, nil
	default:
		return Failed, err
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Eventually polls cond every few milliseconds until it holds, and fails the
// test if it does not within the time.
func (l *Lab) Eventually(within time.Duration, what string, cond func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(within); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %v: %s", within, what)
		}
	}
}
