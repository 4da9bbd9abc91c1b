// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestProxyProtocol(t *testing.T) {
	v4 := func(s string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", s); return a }
	tlvs := map[proxyproto.PP2Type]string{TLVClient: "alice", TLVService: "ssh"}
	for _, tc := range []struct {
		name, down string
		opts       Options
		transport  proxyproto.AddressFamilyAndProtocol
		tlvs       map[proxyproto.PP2Type]string
	}{
		{"v1", "tcp", Options{ProxyProtocol: 1, Client: "alice", Service: "ssh"}, proxyproto.TCPv4, nil},
		{"v2", "tcp", Options{ProxyProtocol: 2, Client: "alice", Service: "ssh"}, proxyproto.TCPv4, tlvs},
		{"v2 without names", "tcp", Options{ProxyProtocol: 2}, proxyproto.TCPv4, nil},
		{"v1 behind tls", "tls", Options{ProxyProtocol: 1}, proxyproto.TCPv4, nil},
		{"v1 from unix", "unix", Options{ProxyProtocol: 1}, proxyproto.UNSPEC, nil},
		{"v2 from unix", "unix", Options{ProxyProtocol: 2, Client: "alice", Service: "ssh"}, proxyproto.UnixStream, tlvs},
		{"v2 of two kinds", "unix", Options{
			ProxyProtocol: 2, Client: "alice", Service: "ssh", Source: v4("192.0.2.1:5"),
		}, proxyproto.UNSPEC, tlvs},
		{"v1 as told", "tcp", Options{
			ProxyProtocol: 1, Source: v4("[2001:db8::1]:5"), Destination: v4("[2001:db8::2]:22"),
		}, proxyproto.TCPv6, nil},
		{"v2 as told", "tcp", Options{
			ProxyProtocol: 2, Source: v4("192.0.2.1:5"), Destination: v4("[2001:db8::2]:22"),
		}, proxyproto.TCPv6, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newRig(t, tc.down, "tcp", "head", &tc.opts)
			g.run(t, t.Context())
			mustWrite(t, g.client, " and tail")
			if err := g.client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(g.server)
			h, err := proxyproto.Read(in)
			if err != nil {
				t.Fatal(err)
			}
			if int(h.Version) != tc.opts.ProxyProtocol {
				t.Errorf("version %d", h.Version)
			}
			if want := tc.transport == proxyproto.UNSPEC; h.Command.IsLocal() != want {
				t.Errorf("command %v", h.Command)
			}
			if h.TransportProtocol != tc.transport {
				t.Errorf("transport %v, want %v", h.TransportProtocol, tc.transport)
			}
			if tc.transport == proxyproto.TCPv4 || tc.transport == proxyproto.TCPv6 {
				source, destination := tc.opts.Source, tc.opts.Destination
				if source == nil {
					source, destination = g.client.LocalAddr(), g.client.RemoteAddr()
				}
				gotS, gotD := h.SourceAddr.(*net.TCPAddr), h.DestinationAddr.(*net.TCPAddr)
				wantS, wantD := source.(*net.TCPAddr), destination.(*net.TCPAddr)
				if !gotS.IP.Equal(wantS.IP) || gotS.Port != wantS.Port || !gotD.IP.Equal(wantD.IP) || gotD.Port != wantD.Port {
					t.Errorf("%v to %v, want %v to %v", gotS, gotD, wantS, wantD)
				}
			}
			got, err := h.TLVs()
			if err != nil || len(got) != len(tc.tlvs) {
				t.Errorf("TLVs %v, %v", got, err)
			}
			for _, tlv := range got {
				if string(tlv.Value) != tc.tlvs[tlv.Type] || !tlv.Type.App() {
					t.Errorf("TLV %#x is %q", tlv.Type, tlv.Value)
				}
			}
			rest, err := io.ReadAll(in)
			if err != nil || string(rest) != "head and tail" {
				t.Errorf("payload %q, %v", rest, err)
			}
			g.server.Close()
			if s := g.wait(t); s.Up != 13 {
				t.Errorf("counted %d bytes, want those of the payload", s.Up)
			}
		})
	}
}

func TestProxyProtocolRefused(t *testing.T) {
	for want, opts := range map[string]Options{
		"version 3": {ProxyProtocol: 3},
		"length":    {ProxyProtocol: 2, Client: strings.Repeat("x", 1<<16)},
		"header":    {ProxyProtocol: 2, Client: strings.Repeat("x", 1<<15), Service: strings.Repeat("x", 1<<15)},
	} {
		g := newRig(t, "tcp", "tcp", "head", &opts)
		s := g.Run(t.Context())
		g.done <- s
		if s.Cause != CauseUp || s.Err == nil || !strings.Contains(s.Err.Error(), want) || s.Up != 0 {
			t.Errorf("stats %+v, want an error on %s", s, want)
		}
		mustFail(t, g.client)
		mustFail(t, g.server)
	}
	if s := Run(t.Context(), closedConn(t), nil, closedConn(t), &Options{}); s.Cause == CauseDone || errors.Is(s.Err, ErrCut) {
		t.Errorf("closed connections: %+v", s)
	}
}

// closedConn is a connection that is already closed at our end.
func closedConn(t *testing.T) net.Conn {
	c, _ := tcpPair(t)
	c.Close()
	return c
}
