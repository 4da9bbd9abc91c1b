// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"encoding/binary"
	"fmt"
	"io"
	"runtime"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
)

// link is a netlink socket to nf_tables. It carries the messages that
// google/nftables encodes and decodes, plugged in as its "test dial": the
// library's own transport waits with select(2) and panics as soon as its socket
// has a file descriptor above 1023, which a busy server soon has.
//
// The kernel works on a request while it is sent, so that all replies are there
// when the send returns.
type link struct {
	fd     int
	port   uint32 // our address as netlink sees it; stamped on what we change
	sndbuf int
	rcvbuf int
	out    []byte
	in     []byte
	// err is why the last exchange failed before the kernel could answer. It
	// stands here because the library would ask for ever for an error returned.
	err error
}

const (
	// recvSize is more than the kernel puts in one datagram (32 KiB).
	recvSize = 256 << 10
	// replySize is what room the answer to one message is given, as nft does.
	replySize = 1 << 10
	// dumpWait bounds the wait for the rest of a dump, in seconds.
	dumpWait = 5
)

// dialNetlink opens a netlink socket of the protocol in the namespace netns (a
// file descriptor, 0 for that of the calling thread).
func dialNetlink(netns, protocol int) (fd int, port uint32, err error) {
	err = inNamespace(netns, func() error {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
			var sa unix.Sockaddr
			if sa, err = unix.Getsockname(fd); err == nil {
				port = sa.(*unix.SockaddrNetlink).Pid
				return nil
			}
		}
		_ = unix.Close(fd)
		return err
	})
	return fd, port, err
}

// inNamespace runs fn in the namespace, on a thread that ends with it.
func inNamespace(netns int, fn func() error) error {
	if netns <= 0 {
		return fn()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

func dialLink(netns int) (*link, error) {
	fd, port, err := dialNetlink(netns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	l := &link{fd: fd, port: port, in: make([]byte, recvSize)}
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: dumpWait})
	return l, nil
}

func (l *link) close() { _ = unix.Close(l.fd) }

// exchange sends the messages as one datagram and returns the replies. It never
// returns an error but io.EOF: see err.
func (l *link) exchange(req []netlink.Message) ([]netlink.Message, error) {
	if len(req) == 0 {
		return nil, io.EOF // the library looks for more
	}
	replies, err := l.roundTrip(req)
	if err != nil {
		l.err = err
		return nil, io.EOF
	}
	if len(replies) == 0 {
		return nil, io.EOF
	}
	return replies, nil
}

func (l *link) roundTrip(req []netlink.Message) ([]netlink.Message, error) {
	l.encode(req)
	l.reserve(len(req))
	if err := unix.Sendto(l.fd, l.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("sending to the kernel: %w", err)
	}
	if cap(l.out) > 1<<20 {
		l.out = nil // do not hold on to the room of a rare large commit
	}
	dump := req[0].Header.Flags&netlink.Dump == netlink.Dump
	flags := unix.MSG_DONTWAIT
	if dump {
		flags = 0
	}
	var replies []netlink.Message
	var lost error
	for {
		n, _, err := unix.Recvfrom(l.fd, l.in, flags)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && !dump:
			return replies, lost
		case err == unix.ENOBUFS:
			lost = fmt.Errorf("receiving from the kernel: %w", err)
			flags, dump = unix.MSG_DONTWAIT, false // take what is left
			continue
		case err != nil:
			return nil, fmt.Errorf("receiving from the kernel: %w", err)
		}
		var done bool
		if replies, done = l.decode(replies, l.in[:n]); done && dump {
			return replies, nil
		}
	}
}

func (l *link) encode(req []netlink.Message) {
	l.out = l.out[:0]
	for _, m := range req {
		h := m.Header
		l.out = binary.NativeEndian.AppendUint32(l.out, uint32(unix.NLMSG_HDRLEN+len(m.Data)))
		l.out = binary.NativeEndian.AppendUint16(l.out, uint16(h.Type))
		l.out = binary.NativeEndian.AppendUint16(l.out, uint16(h.Flags))
		l.out = binary.NativeEndian.AppendUint32(l.out, h.Sequence)
		l.out = binary.NativeEndian.AppendUint32(l.out, l.port)
		l.out = append(l.out, m.Data...)
		for len(l.out)%unix.NLMSG_ALIGNTO != 0 {
			l.out = append(l.out, 0)
		}
	}
}

// reserve makes the socket's buffers large enough for what is sent and for the
// answers. It needs CAP_NET_ADMIN, as all that follows.
func (l *link) reserve(messages int) {
	if need := len(l.out) + 4096; need > l.sndbuf {
		l.sndbuf = max(need, 256<<10)
		_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, l.sndbuf)
	}
	if need := messages * replySize; need > l.rcvbuf {
		l.rcvbuf = max(need, 1<<20)
		_ = unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, l.rcvbuf)
	}
}

// decode appends the messages in b; done reports the end of a dump.
func (l *link) decode(replies []netlink.Message, b []byte) (_ []netlink.Message, done bool) {
	b = append([]byte(nil), b...) // the messages keep pointing into it
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			break
		}
		h := netlink.Header{
			Length:   uint32(size),
			Type:     netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
			Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
			Sequence: binary.NativeEndian.Uint32(b[8:]),
			PID:      nltest.PID, // as the library believes to be
		}
		done = done || h.Type == netlink.Done || h.Type == netlink.Error
		replies = append(replies, netlink.Message{Header: h, Data: b[unix.NLMSG_HDRLEN:size]})
		b = b[min(len(b), (size+3)&^3):]
	}
	return replies, done
}
