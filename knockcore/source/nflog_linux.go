// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

// NFLog is a Passive source: packets that rules in a table of ours hand over, before
// any rule of anybody decides about them. It has a reader of NFLOG of its own
// because go-nflog unbinds what other programs of the host have bound, makes
// garbage of each packet, and does not count lost ones.
type NFLog struct {
	group  uint16
	cfg    nft.Config
	engine *nft.Engine
	socket *rawSocket
	watchers

	lost atomic.Uint64
}

var _ Passive = (*NFLog)(nil)

// engineTimeout bounds a change of the table.
const engineTimeout = 10 * time.Second

// ListenNFLog opens a group, which needs CAP_NET_ADMIN. Until Watch is called there
// is no rule, and no packet comes.
func ListenNFLog(cfg NFLogConfig) (_ *NFLog, err error) {
	s := &NFLog{group: cfg.Group, cfg: nft.Config{Table: cfg.table(), Protect: cfg.Protect, NetNS: cfg.NetNS, OnHeal: cfg.OnHeal}}
	s.apply = s.setRules
	if s.engine, err = nft.New(s.cfg); err != nil {
		return nil, fmt.Errorf("source nflog: %w", err)
	}
	if s.socket, err = newRawSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, "nflog"); err != nil {
		return nil, fmt.Errorf("source nflog: %w", err)
	}
	s.socket.setBuffer(socketBuffer)
	if err := s.bind(); err != nil {
		return nil, errors.Join(s.explain(err), s.socket.close())
	}
	return s, nil
}

// explain tells a group that is taken from a capability that is missing: the kernel
// says EPERM to both.
func (s *NFLog) explain(err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("source nflog: opening group %d: %w", s.group, err)
	}
	if hasCapability(unix.CAP_NET_ADMIN) {
		return fmt.Errorf("source nflog: group %d is read by another program already (see /proc/net/netfilter/nfnetlink_log): choose another one with `group`: %w", s.group, err)
	}
	return lacks(err, "source nflog", "CAP_NET_ADMIN")
}

// hasCapability reports whether this process has an effective capability.
func hasCapability(number uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	return data[number/32].Effective&(1<<(number%32)) != 0
}

// setRules makes the table what is to be seen; it goes when that is nothing.
func (s *NFLog) setRules(list []*Watching) error {
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	cfg := s.cfg
	cfg.Log = nil
	for _, w := range list {
		for _, ports := range w.Drop { // first: a packet is logged by the first rule that it fits
			cfg.Log = append(cfg.Log, nft.LogRule{
				Group: s.group, Size: snapLen, Ports: ports, Drop: true, Interfaces: w.Interfaces, Targets: w.Targets,
			})
		}
		for _, t := range w.Filter.Simplify() {
			cfg.Log = append(cfg.Log, nft.LogRule{
				Group: s.group, Size: snapLen, Ports: t.Ports, Mask: t.Mask, Want: t.Want, Interfaces: w.Interfaces, Targets: w.Targets,
			})
		}
	}
	if len(cfg.Log) == 0 {
		return s.engine.Stop(ctx, knockcore.ExitRemove)
	}
	if err := s.engine.Configure(cfg); err != nil {
		return fmt.Errorf("source nflog: %w", err)
	}
	if err := s.engine.Setup(ctx, nil); err != nil {
		return fmt.Errorf("source nflog: %w", err)
	}
	return nil
}

// Check looks whether the table stands, and mends it if not.
func (s *NFLog) Check(ctx context.Context) error {
	err := s.engine.Check(ctx)
	if errors.Is(err, nft.ErrStopped) {
		return nil // nothing is watched
	}
	return err
}

// What nfnetlink_log.h has and x/sys/unix has not.
const (
	nfulnlMsgPacket = 0
	nfulnlMsgConfig = 1

	nfulaCfgCmd     = 1
	nfulaCfgMode    = 2
	nfulaCfgNlbufsz = 3
	nfulaCfgQthresh = 5
	nfulaCfgFlags   = 6

	nfulnlCmdBind    = 1
	nfulnlCopyPacket = 2
	nfulnlFlagSeq    = 1

	nfulaPayload = 9
	nfulaSeq     = 12

	nfgenmsgLen = 4
	nlattrLen   = 4
)

// bind takes the group: whole packets, at once, with numbers that show what was
// lost.
func (s *NFLog) bind() error {
	mode := append(binary.BigEndian.AppendUint32(nil, snapLen), nfulnlCopyPacket, 0)
	for i, attrs := range [][]byte{
		attribute(nfulaCfgCmd, []byte{nfulnlCmdBind}),
		attribute(nfulaCfgMode, mode),
		append(append(
			attribute(nfulaCfgFlags, binary.BigEndian.AppendUint16(nil, nfulnlFlagSeq)),
			attribute(nfulaCfgQthresh, binary.BigEndian.AppendUint32(nil, 1))...),
			// So small that each packet gets a buffer of its own size.
			attribute(nfulaCfgNlbufsz, binary.BigEndian.AppendUint32(nil, 64))...),
	} {
		if err := s.request(uint32(i+1), attrs); err != nil {
			return err
		}
	}
	return nil
}

func attribute(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(nlattrLen+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// request sends a message and reads the kernel's answer, which is there when it is
// sent. Packets may stand in front of it: rules can be older than we are.
func (s *NFLog) request(number uint32, attrs []byte) error {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+nfgenmsgLen+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_ULOG<<8|nfulnlMsgConfig)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, number)
	b = append(b, 0, 0, 0, 0) // the kernel knows our address
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, s.group)
	b = append(b, attrs...)
	return s.socket.with(func(fd int) error {
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return os.NewSyscallError("sendto", err)
		}
		answer := make([]byte, snapLen)
		for range drainLimit {
			n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
			if err != nil {
				return os.NewSyscallError("recvfrom", err)
			}
			if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(answer[8:]) != number {
				continue
			}
			if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
				return syscall.Errno(-errno)
			}
			return nil
		}
		return errors.New("the kernel does not answer")
	})
}

// Serve implements Source.
func (s *NFLog) Serve(ctx context.Context, sink Sink) error {
	r := nflogReader{source: s, sink: sink}
	// The buffer was full: the numbers of the next packets tell how many were lost.
	pass := func(err error) bool { return errors.Is(err, unix.ENOBUFS) }
	return newRawBatch(s.socket, rawBatchSize, snapLen+512).serve(ctx, r.datagram, pass)
}

// nflogReader takes messages apart.
type nflogReader struct {
	source *NFLog
	sink   Sink
	d      Decoder
	p      Packet
	next   uint32
	counts bool
}

// datagram reads all messages of one datagram.
func (r *nflogReader) datagram(b []byte, _ int) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NFNL_SUBSYS_ULOG<<8|nfulnlMsgPacket && size >= unix.NLMSG_HDRLEN+nfgenmsgLen {
			r.packet(b[unix.NLMSG_HDRLEN+nfgenmsgLen : size])
		}
		b = b[min((size+3)&^3, len(b)):]
	}
}

func (r *nflogReader) packet(attrs []byte) {
	var payload []byte
	for len(attrs) >= nlattrLen {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < nlattrLen || size > len(attrs) {
			return
		}
		data := attrs[nlattrLen:size]
		switch binary.NativeEndian.Uint16(attrs[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case nfulaPayload:
			payload = data
		case nfulaSeq:
			if len(data) == 4 {
				r.count(binary.BigEndian.Uint32(data))
			}
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	r.p.At = time.Now()
	if r.d.Decode(&r.p, payload, wholeLength(payload)) == nil {
		r.sink(&r.p)
	}
}

// count takes note of the packet's number.
func (r *nflogReader) count(number uint32) {
	if r.counts {
		r.source.lost.Add(uint64(number - r.next))
	}
	r.next, r.counts = number+1, true
}

// wholeLength is how long a packet was of which this is the beginning: what is not
// cut off has its own length.
func wholeLength(b []byte) int {
	if len(b) < snapLen {
		return len(b)
	}
	return 1 << 17
}

// Dropped implements Source: what there was no room for in the socket's buffer.
func (s *NFLog) Dropped() uint64 { return s.lost.Load() }

// Close implements Source. It takes the table away.
func (s *NFLog) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	return errors.Join(s.engine.Stop(ctx, knockcore.ExitRemove), s.socket.close())
}
