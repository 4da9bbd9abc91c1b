// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// addresses is a resolver with one answer.
type addresses []string

func (a addresses) LookupNetIP(context.Context, string, string) (list []netip.Addr, err error) {
	for _, s := range a {
		list = append(list, netip.MustParseAddr(s))
	}
	return list, nil
}

// receiver is a UDP socket on loopback.
type receiver struct{ *net.UDPConn }

func listenUDP(t *testing.T, addr netip.AddrPort) receiver {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return receiver{conn}
}

func (r receiver) port() uint16 { return r.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// next waits for a datagram.
func (r receiver) next(t *testing.T) ([]byte, netip.AddrPort) {
	t.Helper()
	b := make([]byte, 2048)
	n, from, err := r.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// bothLoopbacks opens the same port of 127.0.0.1 and ::1.
func bothLoopbacks(t *testing.T) (v4, v6 receiver) {
	t.Helper()
	port := uint16(program.FreePort(t))
	return listenUDP(t, netip.AddrPortFrom(loopback.Addr(), port)), listenUDP(t, netip.AddrPortFrom(netip.IPv6Loopback(), port))
}

func openDatagram(t *testing.T, b []byte, ports ...uint16) *wire.Datagram {
	t.Helper()
	keyring := knockcore.NewInspectionKeyring(&knockcore.Client{ID: "alice", Secrets: []knockcore.Secret{testSecret}})
	config := wire.DatagramConfig{Methods: knockcore.AllMethods, Ports: ports}
	d, _, err := config.Open(keyring, knockcore.NewMACScratch(), b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tcpPort(ports ...uint16) (list []knockcore.PortRange) {
	for _, port := range ports {
		list = append(list, knockcore.PortRange{Protocol: knockcore.TCP, Low: port, High: port})
	}
	return list
}

func TestSendBothFamilies(t *testing.T) {
	v4, v6 := bothLoopbacks(t)
	now := time.UnixMilli(1767225600123)
	s := knockclient.Sender{Resolver: addresses{"fe80::1", "::1", "127.0.0.1", "::ffff:127.0.0.1"}, BothFamilies: true}
	sent, err := s.Send(t.Context(), "host", v4.port(), knockclient.Knock{
		ClientID: "alice", Secret: testSecret, Ports: tcpPort(22), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sent.Deliveries) != 3 || sent.Deliveries[0].Err == nil || sent.Deliveries[1].Datagrams != 1 || sent.Deliveries[2].Datagrams != 1 {
		t.Errorf("Got %+v, want fe80::1 skipped, one datagram to each of the others", sent.Deliveries)
	}
	if got, want := sent.Addrs(), []netip.Addr{netip.IPv6Loopback(), loopback.Addr()}; !slices.Equal(got, want) {
		t.Errorf("Knocked at %v, want %v", got, want)
	}
	var nonces []string
	for _, r := range []receiver{v4, v6} {
		b, _ := r.next(t)
		d := openDatagram(t, b, 22)
		if d.Method != knockcore.MethodUDP || d.Time != now.UnixMilli() || len(d.Session) != 16 || string(d.Session) != string(sent.Session) {
			t.Errorf("Got %+v, session %v", d, sent.Session)
		}
		nonces = append(nonces, string(d.Nonce))
	}
	if nonces[0] == nonces[1] {
		t.Error("The same frame went to both addresses")
	}
}

func TestSendSequence(t *testing.T) {
	r := listenUDP(t, loopback)
	// 127.0.0.2 answers with port unreachable, which must not end the sequence.
	s := knockclient.Sender{Resolver: addresses{"127.0.0.2", "127.0.0.1"}}
	sent, err := s.Send(t.Context(), "host", r.port(), knockclient.Knock{
		Method: knockcore.MethodUDPSeq, ClientID: "alice", Secret: testSecret, Ports: tcpPort(22, 443), Parts: 4, Copies: 2, Interval: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if sent.Deliveries[0].Datagrams != 16 || sent.Deliveries[0].Err != nil {
		t.Errorf("To the closed port: %+v, want all 16", sent.Deliveries[0])
	}
	ids := map[[16]byte]int{}
	var source netip.AddrPort
	for i := range 16 {
		b, from := r.next(t)
		d := openDatagram(t, b, 22, 443)
		ids[d.SequenceID]++
		if int(d.Index) != i/2%4 || d.Total != 4 || d.Port != []uint16{22, 443}[i%2] || string(d.Session) != string(sent.Session) {
			t.Errorf("Datagram %d: %+v", i, d)
		}
		if source.IsValid() && from != source {
			t.Errorf("Datagram %d comes from %v, the ones before from %v", i, from, source)
		}
		source = from
	}
	if len(ids) != 4 { // two ports, two copies
		t.Errorf("There are %d sequences, want 4", len(ids))
	}
}

func TestSendSource(t *testing.T) {
	r := listenUDP(t, loopback)
	s := knockclient.Sender{Resolver: addresses{"::1", "127.0.0.1"}, Source: netip.MustParseAddr("127.0.0.9")}
	k := knockclient.Knock{ClientID: "alice", Secret: testSecret, Ports: tcpPort(22)}
	sent, err := s.Send(t.Context(), "host", r.port(), k)
	if err != nil || sent.Deliveries[0].Err == nil {
		t.Fatalf("Got %+v, %v; want ::1 skipped", sent, err)
	}
	if _, from := r.next(t); from.Addr() != s.Source {
		t.Errorf("Comes from %v", from)
	}
	s.BothFamilies = true
	if _, err := s.Send(t.Context(), "host", r.port(), k); !errors.Is(err, knockclient.ErrNotSent) {
		t.Errorf("One family of both: %v", err)
	}
	s.Resolver, s.BothFamilies = addresses{"::1"}, false
	if _, err := s.Send(t.Context(), "host", r.port(), k); !errors.Is(err, knockclient.ErrNotSent) {
		t.Errorf("No address at all: %v", err)
	}
}

func TestSendPyknock(t *testing.T) {
	v4, v6 := bothLoopbacks(t)
	psk := knockcore.NewSecret([]byte("psk"))
	s := knockclient.Sender{Resolver: addresses{"127.0.0.1", "::1"}}
	for _, test := range []struct {
		close  bool
		signed netip.Addr
	}{{false, netip.Addr{}}, {true, netip.MustParseAddr("203.0.113.7")}} {
		sent, err := s.Send(t.Context(), "host", v4.port(), knockclient.Knock{
			Method: knockcore.MethodPyknock, Secret: psk, Close: test.close, Address: test.signed,
		})
		if err != nil || sent.Session != nil {
			t.Fatalf("Got %+v, %v", sent, err)
		}
		for _, r := range []receiver{v4, v6} {
			b, from := r.next(t)
			p, err := wire.OpenPyknock(time.Now(), time.Hour, psk, b)
			if err != nil {
				t.Fatal(err)
			}
			want := test.signed
			if !want.IsValid() {
				want = from.Addr() // one datagram for each address, signed for its own source
			}
			if p.Addr != want || p.Close != test.close {
				t.Errorf("Got %+v, want address %v", p, want)
			}
		}
	}
}

func TestSendFwknop(t *testing.T) {
	r := listenUDP(t, loopback)
	keys := knockcore.FwknopKeys{Encryption: knockcore.NewSecret([]byte("encryption")), HMAC: knockcore.NewSecret([]byte("hmac")), HMACType: "sha512"}
	k := knockclient.Knock{Method: knockcore.MethodFwknop, Fwknop: keys, ClientID: "alice", Ports: tcpPort(22, 443)}
	for _, openFor := range []time.Duration{0, time.Minute} {
		k.OpenFor = openFor
		if _, err := knockclient.SendUDP(t.Context(), "127.0.0.1", r.port(), k); err != nil {
			t.Fatal(err)
		}
		b, _ := r.next(t)
		f, err := wire.OpenFwknop(keys, b)
		if err != nil {
			t.Fatal(err)
		}
		if f.Allow != netip.IPv4Unspecified() || f.User != "alice" || !slices.Equal(f.Ports, k.Ports) || f.Timeout != openFor {
			t.Errorf("Got %+v", f)
		}
	}
}

func TestKnockValidate(t *testing.T) {
	good := knockclient.Knock{ClientID: "alice", Secret: testSecret, Ports: tcpPort(22)}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(k *knockclient.Knock){
		"method":        func(k *knockclient.Knock) { k.Method = knockcore.MethodEnvelopeV2 },
		"no client":     func(k *knockclient.Knock) { k.ClientID = "" },
		"no port":       func(k *knockclient.Knock) { k.Ports = nil },
		"port 0":        func(k *knockclient.Knock) { k.Ports = tcpPort(0) },
		"short secret":  func(k *knockclient.Knock) { k.Secret = knockcore.NewSecret([]byte("x")) },
		"short session": func(k *knockclient.Knock) { k.Session = []byte("x") },
		"close":         func(k *knockclient.Knock) { k.Close = true },
		"address":       func(k *knockclient.Knock) { k.Address = loopback.Addr() },
		"parts":         func(k *knockclient.Knock) { k.Method, k.Parts = knockcore.MethodUDPSeq, 9 },
		"copies":        func(k *knockclient.Knock) { k.Copies = 101 },
		"time":          func(k *knockclient.Knock) { k.OpenFor = time.Second },
		"fwknop keys":   func(k *knockclient.Knock) { k.Method = knockcore.MethodFwknop },
	} {
		k := good
		change(&k)
		if sent, err := knockclient.SendUDP(t.Context(), "127.0.0.1", 1, k); err == nil || sent != nil {
			t.Errorf("%s: sent", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	good.Copies = 2
	if _, err := knockclient.SendUDP(ctx, "127.0.0.1", 1, good); !errors.Is(err, context.Canceled) {
		t.Errorf("Cancelled: %v", err)
	}
}
