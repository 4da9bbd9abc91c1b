// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// rawBatchSize is how many packets one system call reads at most.
const rawBatchSize = 32

// Packets is a Passive source: packet sockets of Linux (AF_PACKET), one for IPv4 and
// one for IPv6, with a filter in the kernel. They are bound to the protocols of IP,
// so that the kernel has taken VLAN tags away, sees to it that bridged packets come
// once, and does not show packets that leave.
type Packets struct {
	cfg     PacketsConfig
	sockets [2]*rawSocket // IPv4, IPv6
	host    *rawSocket    // tells of changes of interfaces and addresses
	watchers

	local   atomic.Pointer[map[netip.Addr]struct{}]
	sinking sync.Mutex

	// within, if set, calls a function in the sockets' network namespace: for tests,
	// whose threads are in several.
	within func(func())

	counting sync.Mutex
	lost     uint64
}

// PacketsConfig describes a Packets.
type PacketsConfig struct {
	// Interfaces and Targets are as in Watching.
	Interfaces []string
	Targets    []netip.Prefix
}

var _ Passive = (*Packets)(nil)

// ListenPackets opens the sockets, which needs CAP_NET_RAW. Until Watch is called,
// no packet comes. Interfaces need not exist: they may come and go.
func ListenPackets(cfg PacketsConfig) (_ *Packets, err error) {
	s := &Packets{cfg: cfg}
	s.apply = s.attachAll
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.host, err = newRawSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, "changes of the network"); err != nil {
		return nil, err
	}
	err = s.host.with(func(fd int) error {
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrNetlink{
			Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
		}))
	})
	if err != nil {
		return nil, err
	}
	for i, proto := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		// Of protocol 0, it gets nothing before it has its filter and is bound.
		if s.sockets[i], err = newRawSocket(unix.AF_PACKET, unix.SOCK_DGRAM, 0, "packets"); err != nil {
			return nil, lacks(err, "source packet", "CAP_NET_RAW")
		}
		s.sockets[i].setBuffer(socketBuffer)
		if err = s.attachAll(nil); err != nil {
			return nil, err
		}
		err = s.sockets[i].with(func(fd int) error {
			return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(proto)}))
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// networkOrder is a number whose bytes in memory are v's, the highest first.
func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// attachAll makes and attaches the filters for the host as it is now.
func (s *Packets) attachAll(list []*Watching) error {
	var f Filter
	for _, w := range list {
		f = append(f, w.Filter...)
	}
	f = f.Simplify()
	var interfaces, except []uint32
	var err error
	look := func() { interfaces, except, err = s.look() }
	if s.within != nil {
		s.within(look)
	} else {
		look()
	}
	if err != nil {
		return err
	}
	for i, socket := range s.sockets {
		if socket == nil {
			continue
		}
		list, err := program(f, i == 1, interfaces, except)
		if err != nil {
			return err
		}
		if err := socket.attach(sockFilter(list)); err != nil {
			return err
		}
	}
	return nil
}

func sockFilter(list []bpf.RawInstruction) []unix.SockFilter {
	out := make([]unix.SockFilter, len(list))
	for i, in := range list {
		out[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return out
}

// look finds the host's addresses and the numbers of the interfaces that count, or
// of those that do not.
func (s *Packets) look() (interfaces, except []uint32, err error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, nil, fmt.Errorf("listing the addresses of this host: %w", err)
	}
	local := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		if ipNet, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(ipNet.IP); ok {
				local[ip.Unmap()] = struct{}{}
			}
		}
	}
	s.local.Store(&local)
	list, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("listing the interfaces of this host: %w", err)
	}
	if len(s.cfg.Interfaces) > 0 {
		interfaces = []uint32{} // of those that exist; not nil
	}
	for _, i := range list {
		switch {
		case len(s.cfg.Interfaces) > 0 && MatchesInterface(s.cfg.Interfaces, i.Name):
			interfaces = append(interfaces, uint32(i.Index))
		case len(s.cfg.Interfaces) == 0 && i.Flags&net.FlagLoopback != 0:
			except = append(except, uint32(i.Index))
		}
	}
	return interfaces, except, nil
}

// Serve implements Source.
func (s *Packets) Serve(ctx context.Context, sink Sink) error {
	var running sync.WaitGroup
	errs := make([]error, len(s.sockets))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running.Go(func() { s.follow(ctx) })
	for i, socket := range s.sockets {
		running.Go(func() {
			errs[i] = s.read(ctx, socket, sink)
			if errs[i] != nil {
				cancel()
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

func (s *Packets) read(ctx context.Context, socket *rawSocket, sink Sink) error {
	var d Decoder
	var p Packet
	deliver := func(data []byte, full int) {
		p.At = time.Now()
		if d.Decode(&p, data, full) != nil || !s.isTarget(p.To.Addr()) {
			return
		}
		s.sinking.Lock()
		defer s.sinking.Unlock()
		sink(&p)
	}
	// The interface went down: others, or the same one later, go on.
	pass := func(err error) bool { return errors.Is(err, unix.ENETDOWN) }
	return newRawBatch(socket, rawBatchSize, snapLen).serve(ctx, deliver, pass)
}

// isTarget reports whether packets to the address count.
func (s *Packets) isTarget(addr netip.Addr) bool {
	if _, own := (*s.local.Load())[addr]; own {
		return true
	}
	return slices.ContainsFunc(s.cfg.Targets, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// follow looks at the host again whenever its interfaces or addresses change.
func (s *Packets) follow(ctx context.Context) {
	again := func([]byte, int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = s.attachAll(s.list) // what is attached stays
	}
	// A lost message is a change, too.
	lost := func(err error) bool {
		again(nil, 0)
		return errors.Is(err, unix.ENOBUFS)
	}
	_ = newRawBatch(s.host, 1, 1).serve(ctx, again, lost)
}

// Dropped implements Source: what the sockets' buffers had no room for.
func (s *Packets) Dropped() uint64 {
	s.counting.Lock()
	defer s.counting.Unlock()
	for _, socket := range s.sockets {
		if socket == nil {
			continue
		}
		_ = socket.with(func(fd int) error { // reading sets the kernel's counter back
			stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err == nil {
				s.lost += uint64(stats.Drops)
			}
			return err
		})
	}
	return s.lost
}

// Close implements Source.
func (s *Packets) Close() error {
	var errs []error
	for _, socket := range []*rawSocket{s.host, s.sockets[0], s.sockets[1]} {
		if socket != nil {
			errs = append(errs, socket.close())
		}
	}
	return errors.Join(errs...)
}
