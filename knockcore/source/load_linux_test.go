// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestSessionsForReal: 40 clients at once knock and connect, without a pause
// between the two. All get in, each with the frame of its own session.
func TestSessionsForReal(t *testing.T) {
	const clients = 40
	var block strings.Builder
	for i := range clients {
		fmt.Fprintf(&block, "client c%d {\nsecret \"the secret of client %d\"\nservices ssh\n}\n", i, i)
	}
	block.WriteString("service ssh tcp/2222 {\nrequire_session\n}\nsource udp :62201 {\nmethods udp\n}\n")
	s := newSite(t, block.String(), "layer4 {\n:2222 {\nroute {\nknock ssh {\nadmit {\necho\n}\n}\n}\n}\n}")
	for name, c := range map[string]struct {
		connections int
		id          func(int) int
	}{
		"40 clients":                     {clients, func(i int) int { return i }},
		"one client with 40 connections": {40, func(int) int { return 0 }},
	} {
		for _, server := range []netip.Addr{server4, server6} {
			t.Run(fmt.Sprint(name, " ", server), func(t *testing.T) {
				var in atomic.Int64
				var all sync.WaitGroup
				s.client.Do(func() {
					// Sockets are opened here, one after the other, and used at once by all.
					start := make(chan struct{})
					for i := range c.connections {
						udp, err := net.Dial("udp", netip.AddrPortFrom(server, 62201).String())
						if err != nil {
							t.Error(err)
							return
						}
						tcp, err := connectLater(server)
						if err != nil {
							t.Error(err)
							return
						}
						cred := credential(fmt.Sprint("c", c.id(i)), fmt.Sprintf("the secret of client %d", c.id(i)))
						all.Go(func() {
							defer udp.Close()
							<-start
							if err := knockAndConnect(cred, udp, tcp, server); err != nil {
								t.Errorf("connection %d: %v", i, err)
							} else {
								in.Add(1)
							}
						})
					}
					close(start)
				})
				all.Wait()
				if in.Load() != int64(c.connections) {
					t.Errorf("%d of %d got in", in.Load(), c.connections)
				}
			})
		}
	}
}

// connectLater opens a TCP socket in the present namespace that connects when it
// is told to.
func connectLater(server netip.Addr) (fd int, err error) {
	family := unix.AF_INET6
	if server.Is4() {
		family = unix.AF_INET
	}
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

func knockAndConnect(cred *knockcore.Credential, udp net.Conn, tcp int, server netip.Addr) error {
	session := make([]byte, 16)
	_, _ = rand.Read(session)
	d := wire.Datagram{Method: knockcore.MethodUDP, Port: 2222, Time: time.Now().UnixMilli(), Session: session}
	f := wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: 2222, Time: time.Now().UnixMilli(), Session: session}
	knock, err := d.Seal(cred)
	if err != nil {
		return err
	}
	frame, err := f.Seal(cred)
	if err != nil {
		return err
	}
	if _, err := udp.Write(knock); err != nil {
		return err
	}
	to := unix.Sockaddr(&unix.SockaddrInet6{Port: 2222, Addr: server.As16()})
	if server.Is4() {
		to = &unix.SockaddrInet4{Port: 2222, Addr: server.As4()}
	}
	if err := unix.Connect(tcp, to); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	file := os.NewFile(uintptr(tcp), "")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	if !echoes(conn) {
		return fmt.Errorf("not served")
	}
	return nil
}

// TestReloadsForReal runs `caddy reload` again and again while knocks arrive.
func TestReloadsForReal(t *testing.T) {
	s := newSite(t, methodsBlock, gated)
	files := []string{
		s.write("a.caddyfile", config(methodsBlock+" {\nqueue 3000\n}", gated)),
		s.write("b.caddyfile", config(methodsBlock+" {\nworkers 2\n}", gated)),
		s.write("c.caddyfile", config(methodsBlock+" :62299", gated)),
	}
	c := s.dialUDP(s.client, netip.AddrPortFrom(server4, 62201))
	defer c.Close()
	cred := credential("alice", libknockSecret)
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { sent <- n }()
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			select {
			case <-stop:
				return
			default:
			}
			d := wire.Datagram{Method: knockcore.MethodUDP, Port: 2222, Time: time.Now().UnixMilli()}
			if b, err := d.Seal(cred); err != nil {
				t.Error(err)
			} else if _, err := c.Write(b); err == nil {
				n++
			}
		}
	}()
	const reloads = 12
	for i := range reloads {
		s.server.Run(s.program, "reload", "--force", "--address", adminAddress, "--config", files[i%len(files)])
	}
	close(stop)
	n := <-sent
	s.caddy.Await(t, "all knocks to be decided", func() bool { return s.decided("") >= n })
	if ok := s.decided("ok"); ok != n {
		t.Errorf("%d knocks over %d reloads, %d granted", n, reloads, ok)
	}
	t.Logf("%d knocks over %d reloads", n, reloads)
}
