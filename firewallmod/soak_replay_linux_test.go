// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// throwAgain keeps what was accepted in this round, and throws it and some of what
// was accepted before again, all of which must be refused.
func (s *soak) throwAgain(when string, lines []auditLine) {
	s.Helper()
	admitted := func(x sent, scope string) bool {
		return slices.ContainsFunc(lines, func(l auditLine) bool {
			return l.Logger == "knock.audit" && l.Msg == "granted" && l.Source == x.from.Addr() && (l.Scope == "connection") == (scope == "connection")
		})
	}
	var fresh []sent
	for _, c := range s.clients {
		datagrams, streams, err := c.tap.read(c)
		if err != nil {
			s.Fatal(err)
		}
		for _, x := range datagrams {
			if admitted(x, "address") {
				fresh = append(fresh, x)
			}
		}
		for _, x := range streams {
			if x.port == bothPort && admitted(x, "connection") {
				fresh = append(fresh, x)
			}
			for _, r := range c.runs { // a frame of its own is told by what came behind it
				if at := strings.LastIndex(string(x.data), r.token); r.ok && r.port == framePort && x.port == framePort && at > 0 {
					x.data = x.data[:at]
					fresh = append(fresh, x)
				}
			}
		}
		c.runs = c.runs[:0]
	}
	thrown := slices.Clone(fresh)
	for range min(30, len(s.accepted)) {
		x := s.accepted[s.rnd.IntN(len(s.accepted))]
		if x.port != bothPort || time.Since(x.at) < bothWindow/2 { // else its window may be closed
			thrown = append(thrown, x)
		}
	}
	s.accepted = append(s.accepted, fresh...)
	datagrams := 0
	for _, x := range thrown {
		if x.port == "62201" {
			datagrams++
		}
	}
	ok, refused := s.knocks()
	in, err := throwAll(thrown)
	if err != nil {
		s.Errorf("%s: throwing frames again: %v", when, err)
	}
	for _, x := range in {
		s.Errorf("%s: a replay of %s got into port %s", when, x.client.id, x.port)
	}
	s.caddy.Await(s.T, "the verdict on replays", func() bool {
		nowOK, nowRefused := s.knocks()
		return nowOK-ok+nowRefused-refused >= datagrams
	})
	if now, _ := s.knocks(); now != ok {
		s.Errorf("%s: %d replays of datagrams were accepted", when, now-ok)
	}
	s.count.thrown += len(thrown)
	for _, c := range s.clients { // what was thrown
		if _, _, err := c.tap.read(c); err != nil {
			s.Fatal(err)
		}
	}
}

var udpKnocks = regexp.MustCompile(`(?m)^caddy_knock_knocks_total\{method="udp",reason="(\w+)"\} (\d+)`)

// knocks counts the datagrams that were accepted and those that were not.
func (s *soak) knocks() (ok, refused int) {
	s.Helper()
	status, body := s.call(http.MethodGet, "/metrics", "")
	if status != http.StatusOK {
		s.Fatal(status, body)
	}
	for _, m := range udpKnocks.FindAllStringSubmatch(body, -1) {
		n, _ := strconv.Atoi(m[2])
		if m[1] == "ok" {
			ok += n
		} else {
			refused += n
		}
	}
	return ok, refused
}

// throw sends a datagram again.
func (x *sent) throw() error {
	return x.dial("udp", func(conn net.Conn) error {
		_, err := conn.Write(x.data)
		return err
	})
}

// enter sends the beginning of a stream again, and reports whether that let us in:
// then what comes behind it is echoed.
func (x *sent) enter() (in bool, err error) {
	const word = "are we in?\n"
	err = x.dial("tcp", func(conn net.Conn) error {
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Write(append(bytes.Clone(x.data), word...)); err != nil {
			return err
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		in = bytes.Contains(answer, []byte(word))
		if !in && err == nil && !bytes.HasPrefix(answer, []byte("cover")) {
			return errors.New("neither the cover nor the service answered")
		}
		return err
	})
	return in, err
}

func (x *sent) dial(network string, use func(net.Conn) error) (err error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	if network == "udp" {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(x.from.Addr(), 0))
	} else {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(x.from.Addr(), 0))
	}
	var conn net.Conn
	x.client.ns.Do(func() { conn, err = dialer.Dial(network, net.JoinHostPort(x.client.host(), x.port)) })
	if err != nil {
		return err
	}
	defer conn.Close()
	return use(conn)
}

// throwAll throws streams and datagrams again, and returns those that let us in.
// How the datagrams fared is for the metrics to tell.
func throwAll(all []sent) (in []sent, err error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	places := make(chan struct{}, 8)
	for _, x := range all {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			var entered bool
			var failed error
			if x.port == "62201" {
				failed = x.throw()
			} else {
				entered, failed = x.enter()
			}
			mu.Lock()
			defer mu.Unlock()
			if entered {
				in = append(in, x)
			}
			if failed != nil {
				err = failed
			}
		})
	}
	group.Wait()
	return in, err
}
