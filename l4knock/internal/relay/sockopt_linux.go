// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func setUserTimeout(tcp *net.TCPConn, d time.Duration) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		ms := int(min((d+time.Millisecond-1)/time.Millisecond, 1<<31-1))
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
	})
}

// queued is how many bytes sent to e its peer has not yet taken in, 0 if e is
// closed or no socket.
func (e *endpoint) queued() int64 { return e.ioctl(unix.SIOCOUTQ) }

// taken is how many bytes e's peer has taken in of those sent to it: moved is how
// many were handed to e, and of TCP the kernel knows better, since a write may be in
// the middle.
func (e *endpoint) taken(moved int64) int64 {
	if tcp, ok := e.base.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			var acked uint64
			_ = raw.Control(func(fd uintptr) {
				if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
					acked = info.Bytes_acked
				}
			})
			if acked > 0 { // 0 before Linux 4.2, too
				return int64(acked)
			}
		}
	}
	return moved - e.queued()
}

// unread is how many bytes of e's peer we have not read, 0 if e is closed or no
// socket.
func (e *endpoint) unread() int64 { return e.ioctl(unix.SIOCINQ) }

func (e *endpoint) ioctl(request uint) int64 {
	c, ok := e.base.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), request) })
	return int64(n)
}

// flush waits until the peer has taken in what was sent to it, but not for longer
// than limit and not once e is closed.
func (e *endpoint) flush(limit time.Duration) {
	// There is no event for this, and it is rarely needed.
	for pause := time.Millisecond; limit > 0 && e.queued() > 0; pause = min(2*pause, 64*time.Millisecond) {
		time.Sleep(pause)
		limit -= pause
	}
}

// sendRoom is about how many bytes the socket takes before it is full.
func sendRoom(fd int) int {
	size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return 0
	}
	queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return size - queued
}

// wasReset tells whether what looked like an end was a reset. The kernel reports a
// reset once, perhaps to the direction that writes; the one that reads then sees an
// end. But a connection that we have not ended is not closed by its peer's end.
func (e *endpoint) wasReset() bool {
	if _, ok := e.conn.(*net.TCPConn); !ok || e.raw == nil || e.ended.Load() {
		return false
	}
	closed := false
	if err := e.raw.Control(func(fd uintptr) {
		_, err := syscall.Getpeername(int(fd)) // that of package unix makes another system call
		closed = err == syscall.ENOTCONN
	}); err != nil {
		return false
	}
	return closed && !e.ended.Load()
}
