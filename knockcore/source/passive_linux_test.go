// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// passiveLab is a host with a passive source, and its neighbour.
type passiveLab struct {
	*testing.T
	host, peer *netlab.NS
	source     Passive
	packets    chan Packet
	stop       func()
}

// passiveSources makes each of them in a namespace.
var passiveSources = map[string]func(host *netlab.NS) (Passive, error){
	"packet": func(host *netlab.NS) (Passive, error) {
		var s *Packets
		var err error
		host.Do(func() { s, err = ListenPackets(PacketsConfig{Targets: targets}) })
		if err == nil {
			s.within = host.Do
		}
		return s, err
	},
	"nflog": func(host *netlab.NS) (s Passive, err error) {
		host.Do(func() { s, err = ListenNFLog(NFLogConfig{Group: 7, NetNS: host.FD()}) })
		return s, err
	},
}

var targets = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}

func eachPassive(t *testing.T, fn func(l *passiveLab)) {
	for name, open := range passiveSources {
		t.Run(name, func(t *testing.T) {
			netlab.Need(t, "nft")
			lab := netlab.New(t)
			l := &passiveLab{T: t, host: lab.NS("host"), peer: lab.NS("peer"), packets: make(chan Packet, 1000)}
			lab.Link(l.host, []string{"192.0.2.1/24", "2001:db8::1/64"}, l.peer, []string{"192.0.2.2/24", "2001:db8::2/64"})
			var err error
			if l.source, err = open(l.host); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() {
				done <- l.source.Serve(ctx, func(p *Packet) {
					c := Packet{}
					c.copyFrom(p)
					l.packets <- c
				})
			}()
			stopped := false
			l.stop = func() {
				if stopped {
					return
				}
				stopped = true
				began := time.Now()
				cancel()
				select {
				case err := <-done:
					if err != nil {
						t.Errorf("Serve: %v", err)
					}
				case <-time.After(10 * time.Second):
					t.Errorf("does not stop after %v", time.Since(began))
				}
				if err := l.source.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			t.Cleanup(l.stop)
			fn(l)
		})
	}
}

// watch lets through and returns how to end that.
func (l *passiveLab) watch(f Filter) func() {
	l.Helper()
	release, err := l.source.Watch(Watching{Filter: f, Targets: targets})
	if err != nil {
		l.Fatal(err)
	}
	return func() {
		l.Helper()
		if err := release(); err != nil {
			l.Error(err)
		}
	}
}

// next is the next packet.
func (l *passiveLab) next() Packet {
	l.Helper()
	select {
	case p := <-l.packets:
		return p
	case <-time.After(10 * time.Second):
		l.Fatal("no packet comes")
		return Packet{}
	}
}

func (l *passiveLab) send(to, payload string) {
	l.Helper()
	c, err := l.peer.Dial("udp", to, time.Second)
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(payload)); err != nil && !strings.Contains(err.Error(), "refused") {
		l.Fatal(err)
	}
}

func udpPort(port uint16) Filter {
	return Filter{{Ports: knockcore.PortRange{Protocol: knockcore.UDP, Low: port, High: port}}}
}

func TestPassive(t *testing.T) {
	eachPassive(t, func(l *passiveLab) {
		release := l.watch(Filter{
			{Ports: knockcore.PortRange{Protocol: knockcore.UDP, Low: 7000, High: 7001}},
			SYNTest(knockcore.PortRange{Protocol: knockcore.TCP, Low: 7000, High: 7000}),
		})
		l.send("192.0.2.1:6999", "below")
		l.send("192.0.2.1:7002", "above")
		l.send("192.0.2.1:7001", "IPv4")
		if p := l.next(); string(p.Payload) != "IPv4" || p.From.Addr().String() != "192.0.2.2" || p.To.String() != "192.0.2.1:7001" || p.Protocol != knockcore.UDP || time.Since(p.At) > time.Minute {
			l.Errorf("%+v", p)
		}
		l.send("[2001:db8::1]:7000", "IPv6")
		if p := l.next(); string(p.Payload) != "IPv6" || p.From.Addr().String() != "2001:db8::2" || p.To.String() != "[2001:db8::1]:7000" {
			l.Errorf("%+v", p)
		}
		for _, to := range []string{"192.0.2.1:7000", "[2001:db8::1]:7000"} {
			_ = l.peer.Probe("tcp", to)
			p := l.next()
			if p.Protocol != knockcore.TCP || p.TCPFlags&(SYN|ACK) != SYN || p.To.String() != to || !p.HasTSval || p.TCP.Seq == 0 || p.TCP.Window == 0 {
				l.Errorf("%+v", p)
			}
			for len(l.packets) > 0 {
				<-l.packets // the probe may have tried again
			}
		}
		// Another configuration joins, and the first one goes.
		both := l.watch(udpPort(7500))
		l.send("192.0.2.1:7500", "new")
		l.send("192.0.2.1:7001", "old")
		if p, q := l.next(), l.next(); string(p.Payload) != "new" || string(q.Payload) != "old" {
			l.Errorf("%q, %q", p.Payload, q.Payload)
		}
		release()
		release()
		l.send("192.0.2.1:7001", "too late")
		l.send("192.0.2.1:7500", "still")
		if p := l.next(); string(p.Payload) != "still" {
			l.Errorf("%q", p.Payload)
		}
		// What it says itself, and on loopback, is not seen.
		if c, err := l.host.Dial("udp", "192.0.2.2:7500", time.Second); err == nil {
			_, _ = c.Write([]byte("leaves"))
			_ = c.Close()
		}
		if c, err := l.host.Dial("udp", "127.0.0.1:7500", time.Second); err == nil {
			_, _ = c.Write([]byte("stays"))
			_ = c.Close()
		}
		l.send("192.0.2.1:7500", "end")
		if p := l.next(); string(p.Payload) != "end" {
			l.Errorf("%q from %v", p.Payload, p.From)
		}
		both()
		l.stop()
	})
}

// TestPassiveTarget: packets for others who are reached by us count if they are
// targets; new addresses of our own do at once.
func TestPassiveTarget(t *testing.T) {
	eachPassive(t, func(l *passiveLab) {
		l.host.Forward()
		l.peer.Run("ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.1")
		l.peer.Run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
		l.watch(udpPort(7000))
		l.send("198.51.100.9:7000", "passing by")
		l.send("203.0.113.9:7000", "target")
		if p := l.next(); string(p.Payload) != "target" {
			l.Errorf("%q", p.Payload)
		}
		l.host.Addr("eth0", "198.51.100.1/24")
		for deadline := time.Now().Add(10 * time.Second); len(l.packets) == 0; time.Sleep(5 * time.Millisecond) {
			l.send("198.51.100.1:7000", "own")
			if time.Now().After(deadline) {
				l.Fatal("a new address is not noticed")
			}
		}
	})
}

// TestPassiveTags: VLAN tags are the kernel's. Of the tag 0, which only says how
// urgent a packet is, it makes nothing; a VLAN that this host is not in is not for us.
func TestPassiveTags(t *testing.T) {
	eachPassive(t, func(l *passiveLab) {
		l.watch(udpPort(7000))
		mac, err := net.ParseMAC(strings.TrimSpace(strings.Fields(strings.SplitAfter(l.host.Run("ip", "-o", "link", "show", "eth0"), "link/ether ")[1])[0]))
		if err != nil {
			l.Skipf("the address of the device: %v", err)
		}
		for _, tag := range []uint16{5, 0xe000} {
			l.inject(mac, tag, packet4(udpProto, nil, 0, udp(7000, fmt.Sprint("tag ", tag&0xfff))))
		}
		if p := l.next(); string(p.Payload) != "tag 0" {
			l.Errorf("%q", p.Payload)
		}
	})
}

// inject sends a tagged frame. The IPv4 header gets its checksum.
func (l *passiveLab) inject(to net.HardwareAddr, tag uint16, packet []byte) {
	l.Helper()
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum))
	frame := append(append([]byte{}, to...), 2, 0, 0, 0, 0, 1, 0x81, 0)
	frame = append(binary.BigEndian.AppendUint16(frame, tag), 0x08, 0)
	frame = append(frame, packet...)
	var err error
	l.peer.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		var device *net.Interface
		if device, err = net.InterfaceByName("eth0"); err == nil {
			err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device.Index, Protocol: networkOrder(unix.ETH_P_8021Q), Halen: 6})
		}
	})
	if err != nil {
		l.Fatal(err)
	}
}
