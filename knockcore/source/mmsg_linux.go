// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
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

// rawBatch reads many packets with one system call, into memory of its own.
type rawBatch struct {
	socket *rawSocket
	msgs   []mmsghdr
	iovs   []unix.Iovec
	bufs   [][]byte
}

func newRawBatch(s *rawSocket, count, size int) *rawBatch {
	b := &rawBatch{socket: s, msgs: make([]mmsghdr, count), iovs: make([]unix.Iovec, count), bufs: make([][]byte, count)}
	memory := make([]byte, count*size)
	for i := range b.msgs {
		b.bufs[i] = memory[i*size : (i+1)*size : (i+1)*size]
		b.iovs[i].Base = &b.bufs[i][0]
		b.iovs[i].SetLen(size)
		b.msgs[i].hdr.Iov = &b.iovs[i]
		b.msgs[i].hdr.SetIovlen(1)
	}
	return b
}

// read waits for packets unless wait is false, and tells how many there are; msg
// gives them.
func (b *rawBatch) read(wait bool) (n int, err error) {
	readErr := b.socket.conn.Read(func(fd uintptr) bool {
		for {
			r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[0])), uintptr(len(b.msgs)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
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
func (b *rawBatch) msg(i int) (data []byte, full int) {
	full = int(b.msgs[i].len)
	return b.bufs[i][:min(full, len(b.bufs[i]))], full
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
