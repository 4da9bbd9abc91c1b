// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// pair is a TCP connection as its socket on this host sees it.
type pair struct{ local, remote netip.AddrPort }

func dialConntrack(netns int) (*conntrack.Conn, error) {
	conn, err := conntrack.Dial(&netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConntrack, err)
	}
	return conn, nil
}

// conntrack finds the flows that the requests are about, and of those that were
// translated to a port of this host, the sockets.
func (e *Engine) conntrack(asked []request) (flows []conntrack.Flow, natted map[pair]bool, err error) {
	all, err := dump(e.cfg.NetNS, sources(asked))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrConntrack, err)
	}
	local, err := localAddrs(e.cfg.NetNS)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrConntrack, err)
	}
	natted = make(map[pair]bool)
	for i := range all {
		orig := &all[i].TupleOrig
		proto := knockcore.Protocol(orig.Proto.Protocol)
		remote := netip.AddrPortFrom(orig.IP.SourceAddress.Unmap(), orig.Proto.SourcePort)
		r := e.wanted(asked, proto, remote, orig.Proto.DestinationPort)
		if r == nil || !gated(r.service, orig.IP.DestinationAddress.Unmap(), local) {
			continue
		}
		flows = append(flows, all[i])
		if reply := all[i].TupleReply; proto == knockcore.TCP && (reply.IP.SourceAddress != orig.IP.DestinationAddress || reply.Proto.SourcePort != orig.Proto.DestinationPort) {
			natted[pair{
				netip.AddrPortFrom(reply.IP.SourceAddress.Unmap(), reply.Proto.SourcePort),
				netip.AddrPortFrom(reply.IP.DestinationAddress.Unmap(), reply.Proto.DestinationPort),
			}] = true
		}
	}
	return flows, natted, nil
}

// gated reports whether the service is gated on that destination: an address of
// this host or one of the service's own.
func gated(s *knockcore.Service, dst netip.Addr, local map[netip.Addr]bool) bool {
	if local[dst] {
		return true
	}
	for _, p := range s.Destinations {
		if p.Contains(dst) {
			return true
		}
	}
	return false
}

// forget deletes entries.
func (e *Engine) forget(flows []conntrack.Flow) (deleted int, err error) {
	if len(flows) == 0 {
		return 0, nil
	}
	conn, err := dialConntrack(e.cfg.NetNS)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var failed error
	for _, f := range flows {
		switch err := conn.Delete(f); {
		case err == nil:
			deleted++
		case errors.Is(err, fs.ErrNotExist): // it went by itself
		default:
			failed = err
		}
	}
	if failed != nil {
		failed = fmt.Errorf("%w: deleting an entry: %w", ErrConntrack, failed)
	}
	return deleted, failed
}

func probeConntrack(netns int) error {
	conn, err := dialConntrack(netns)
	if err != nil {
		return err
	}
	defer conn.Close()
	// What deleting needs is told by an entry that is not there.
	nobody := conntrack.NewFlow(6, 0, netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("192.0.2.0"), 1, 1, 0, 0)
	if err := conn.Delete(nobody); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrConntrack, err)
	}
	return nil
}

// localAddrs are the addresses of this host.
func localAddrs(netns int) (map[netip.Addr]bool, error) {
	local := make(map[netip.Addr]bool)
	return local, inNamespace(netns, func() error {
		addrs, err := net.InterfaceAddrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if addr, ok := netip.AddrFromSlice(n.IP); ok {
					local[addr.Unmap()] = true
				}
			}
		}
		return err
	})
}
