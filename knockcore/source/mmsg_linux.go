// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawSocket is a socket that Go's net package does not know: reading waits in Go's
// poller, so that it ends at once.
type rawSocket struct {
	file *os.File
	conn syscall.RawConn
}

func newRawSocket(domain, typ, proto int, name string) (*rawSocket, error) {
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &rawSocket{file: os.NewFile(uintptr(fd), name)}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return s, nil
}

// with calls fn with the descriptor.
func (s *rawSocket) with(fn func(fd int) error) error {
	var result error
	if err := s.conn.Control(func(fd uintptr) { result = fn(int(fd)) }); err != nil {
		return err
	}
	return result
}

// setBuffer asks for room for packets that were not read yet.
func (s *rawSocket) setBuffer(size int) {
	_ = s.with(func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
		return nil
	})
}

func (s *rawSocket) close() error { return s.file.Close() }

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32 // with padding as C's
}

// mmsg reads many packets with one system call, into memory of its own.
type mmsg struct {
	conn  syscall.RawConn
	hdrs  []mmsghdr
	iovs  []unix.Iovec
	bufs  [][]byte
	froms []unix.RawSockaddrInet6 // as long as any address that is asked for
	oobs  [][]byte
}

// newMmsg makes room for count packets of size bytes. If oob is not 0, it is how
// much there is for what the kernel tells about each, and senders are told, too.
func newMmsg(conn syscall.RawConn, count, size, oob int) *mmsg {
	m := &mmsg{
		conn: conn, hdrs: make([]mmsghdr, count), iovs: make([]unix.Iovec, count), bufs: make([][]byte, count),
		froms: make([]unix.RawSockaddrInet6, count), oobs: make([][]byte, count),
	}
	memory := make([]byte, count*(size+oob))
	take := func(n int) []byte {
		b := memory[:n:n]
		memory = memory[n:]
		return b
	}
	for i := range m.hdrs {
		m.bufs[i] = take(size)
		m.iovs[i].Base = &m.bufs[i][0]
		m.iovs[i].SetLen(size)
		hdr := &m.hdrs[i].hdr
		hdr.Iov = &m.iovs[i]
		hdr.SetIovlen(1)
		if oob > 0 {
			m.oobs[i] = take(oob)
			hdr.Name = (*byte)(unsafe.Pointer(&m.froms[i]))
			hdr.Control = &m.oobs[i][0]
		}
	}
	m.reset(count)
	return m
}

// reset gives the kernel back the room for what it tells about the first n packets.
func (m *mmsg) reset(n int) {
	for i := range m.hdrs[:n] {
		if len(m.oobs[i]) > 0 {
			m.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet6
			m.hdrs[i].hdr.SetControllen(len(m.oobs[i]))
		}
	}
}

// read waits for packets unless wait is false, and tells how many there are; msg,
// from and oob give them.
func (m *mmsg) read(wait bool) (n int, err error) {
	readErr := m.conn.Read(func(fd uintptr) bool {
		for {
			r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&m.hdrs[0])), uintptr(len(m.hdrs)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
			switch errno {
			case 0:
				n, err = int(r), nil
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				n, err = 0, nil
				return !wait
			default:
				n, err = 0, os.NewSyscallError("recvmmsg", errno)
			}
			return true
		}
	})
	if err == nil {
		err = readErr
	}
	return n, err
}

// msg is what there is of packet i, and how long it was.
func (m *mmsg) msg(i int) (data []byte, full int) {
	full = int(m.hdrs[i].len)
	return m.bufs[i][:min(full, len(m.bufs[i]))], full
}

// oob is what the kernel tells about packet i.
func (m *mmsg) oob(i int) []byte { return m.oobs[i][:m.hdrs[i].hdr.Controllen] }

// from is the sender of packet i, the zero AddrPort if it is not known.
func (m *mmsg) from(i int) netip.AddrPort {
	addr := &m.froms[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&addr.Port))[:])
	switch addr.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(addr)).Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(addr.Addr).Unmap(), port)
	default:
		return netip.AddrPort{}
	}
}

// rawBatch reads many packets of a raw socket with one system call.
type rawBatch struct {
	socket *rawSocket
	*mmsg
}

func newRawBatch(s *rawSocket, count, size int) *rawBatch {
	return &rawBatch{socket: s, mmsg: newMmsg(s.conn, count, size, 0)}
}

// serve calls deliver for all packets until ctx is done, then for those that are
// there already. After errors for which pass returns true it goes on at once, after
// others with a pause.
func (b *rawBatch) serve(ctx context.Context, deliver func(data []byte, full int), pass func(error) bool) error {
	stop := context.AfterFunc(ctx, func() { _ = b.socket.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	pause := time.Duration(0)
	for {
		n, err := b.read(true)
		for i := range n {
			deliver(b.msg(i))
		}
		switch {
		case err == nil:
			pause = 0
		case ctx.Err() != nil:
			return b.drain(deliver)
		case errors.Is(err, os.ErrClosed):
			return err
		case pass(err):
			pause = 0
		default:
			// Out of memory, say.
			pause = min(max(2*pause, time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

// drain reads what has arrived.
func (b *rawBatch) drain(deliver func(data []byte, full int)) error {
	_ = b.socket.file.SetReadDeadline(time.Time{})
	for left := drainLimit; left > 0; {
		n, _ := b.read(false)
		if n <= 0 {
			return nil
		}
		for i := range n {
			deliver(b.msg(i))
		}
		left -= n
	}
	return nil
}

// attach replaces the socket's filter.
func (s *rawSocket) attach(list []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
	return s.with(func(fd int) error {
		return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
	})
}

// lacks explains an error that says that this process may not do something, and
// how to let it.
func lacks(err error, what, capability string) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	program, _ := os.Executable()
	return fmt.Errorf("%s needs %s: %w; with systemd, add `AmbientCapabilities=%s` to [Service] (`systemctl edit caddy`), otherwise run `setcap %s=+ep %s`",
		what, capability, err, capability, strings.ToLower(capability), program)
}
