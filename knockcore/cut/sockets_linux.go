// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"runtime"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// From linux/sock_diag.h and linux/inet_diag.h.
const (
	tcpDiagGetSock = 18 // of both families at once, which sock_diag's own request is not
	sockDestroy    = 21
	diagIDSize     = 48             // struct inet_diag_sockid
	diagMsgSize    = 4 + diagIDSize // the head of struct inet_diag_msg
	tcpListen      = 10
	tcpClose       = 7
	tcpTimeWait    = 6
)

// openStates are the TCP states of sockets that hold a connection.
const openStates = 0xffff &^ (1<<tcpListen | 1<<tcpClose | 1<<tcpTimeWait)

// listRequest is a struct inet_diag_req about all sockets in the states.
func listRequest(states uint32) []byte {
	b := make([]byte, 4+diagIDSize+8)
	binary.NativeEndian.PutUint32(b[4+diagIDSize:], states)
	return b
}

// destroyRequest is a struct inet_diag_req_v2 about one TCP socket.
func destroyRequest(family uint8, id []byte) []byte {
	b := make([]byte, 8, 8+diagIDSize)
	b[0], b[1] = family, unix.IPPROTO_TCP
	return append(b, id...)
}

// socket reads a struct inet_diag_msg: the ends, in network byte order, and the
// ID by which the kernel knows it.
func socket(msg []byte) (ends pair, id []byte, ok bool) {
	if len(msg) < diagMsgSize {
		return ends, nil, false
	}
	id = msg[4:diagMsgSize]
	addr := func(b []byte) netip.Addr {
		if msg[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b))
		}
		return netip.AddrFrom16([16]byte(b)).Unmap()
	}
	ends.local = netip.AddrPortFrom(addr(id[4:]), binary.BigEndian.Uint16(id))
	ends.remote = netip.AddrPortFrom(addr(id[20:]), binary.BigEndian.Uint16(id[2:]))
	return ends, id, true
}

// sockets resets the connections of this host that the requests are about, and
// those of the pairs given.
func (e *Engine) sockets(asked []request, natted map[pair]bool) (reset int, err error) {
	conn, err := dialSockets(e.cfg.NetNS)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	msgs, err := list(conn, remoteFilter(remotes(asked, natted)))
	if err != nil { // a kernel may not like the filter
		msgs, err = list(conn, nil)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: listing sockets: %w", ErrSockets, err)
	}
	for _, m := range msgs {
		ends, id, ok := socket(m.Data)
		if !ok || !natted[ends] && e.wanted(asked, knockcore.TCP, ends.remote, ends.local.Port()) == nil {
			continue
		}
		switch err := destroy(conn, m.Data[0], id); {
		case err == nil:
			reset++
		case errors.Is(err, fs.ErrNotExist): // it went by itself
		default:
			return reset, fmt.Errorf("%w: %w", ErrSockets, err)
		}
	}
	return reset, nil
}

// remotes are the other ends of what is looked for.
func remotes(asked []request, natted map[pair]bool) (list []netip.Prefix) {
	seen := make(map[netip.Prefix]bool)
	add := func(p netip.Prefix) {
		if !seen[p] {
			seen[p], list = true, append(list, p)
		}
	}
	for _, r := range asked {
		add(r.prefix)
	}
	for ends := range natted {
		add(knockcore.AddrPrefix(ends.remote.Addr()))
	}
	return list
}

// list lists the open TCP sockets that the filter selects; nil means all.
func list(conn *netlink.Conn, filter []byte) ([]netlink.Message, error) {
	return conn.Execute(netlink.Message{
		Header: netlink.Header{Type: tcpDiagGetSock, Flags: netlink.Request | netlink.Dump},
		Data:   append(listRequest(openStates), filter...),
	})
}

func destroy(conn *netlink.Conn, family uint8, id []byte) error {
	_, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: sockDestroy, Flags: netlink.Request | netlink.Acknowledge},
		Data:   destroyRequest(family, id),
	})
	return err
}

func dialSockets(netns int) (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_INET_DIAG, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSockets, err)
	}
	return conn, nil
}

func probeSockets(netns int) error {
	conn, err := dialSockets(netns)
	if err != nil {
		return err
	}
	defer conn.Close()
	// The kernel asks for the right only when it has found the socket.
	if !mayAdministerNetwork() {
		return fmt.Errorf("%w: %w", ErrSockets, unix.EPERM)
	}
	// A kernel that cannot do it says so also of a socket that is not there.
	if err := destroy(conn, unix.AF_INET, make([]byte, diagIDSize)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrSockets, err)
	}
	return nil
}

// mayAdministerNetwork reports whether this process has CAP_NET_ADMIN.
func mayAdministerNetwork() bool {
	var data [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// inNamespace runs fn in the namespace, on a thread that ends with it.
func inNamespace(netns int, fn func() error) error {
	if netns <= 0 {
		return fn()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}
