// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// receiver is a UDP socket on loopback.
type receiver struct {
	*net.UDPConn
	port uint16
}

func listenUDP(t *testing.T, address string) receiver {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return receiver{conn, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()}
}

func (r receiver) flag() string { return fmt.Sprint("--knock-port=", r.port) }

// next waits for a datagram, unless the test has failed, so that none may come.
func (r receiver) next(t *testing.T) []byte {
	t.Helper()
	if t.Failed() {
		t.FailNow()
	}
	b := make([]byte, 2048)
	n, _, err := r.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func (r receiver) datagram(t *testing.T, ports ...uint16) *wire.Datagram {
	t.Helper()
	keyring := knockcore.NewInspectionKeyring(&knockcore.Client{ID: "alice", Secrets: []knockcore.Secret{testSecret}})
	config := wire.DatagramConfig{Methods: knockcore.AllMethods, Ports: ports}
	d, _, err := config.Open(keyring, knockcore.NewMACScratch(), r.next(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// report is what send, open and close print with --json.
type report struct {
	OK                                   bool
	Method, Action, Host, Session, Error string
	Sent                                 []struct {
		Address, Error string
		Datagrams      int
	}
	Connected *struct {
		Address            string
		Attempts           int
		Frame, ServerProof bool `json:",omitempty"`
	}
}

func (r result) report(t *testing.T) (rep report) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
		t.Fatalf("Got %q: %v", r.stdout, err)
	}
	return rep
}

func TestSend(t *testing.T) {
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{Port: 2222})
	saveProfile(t, profiles, "seq", knockclient.Profile{Server: "127.0.0.1", Port: 22, Knock: &knockclient.ProfileKnock{
		Method: knockcore.MethodUDPSeq, Parts: 4, Interval: time.Millisecond,
	}})
	v4, v6 := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "[::1]:0")
	tests := map[string]struct {
		to    receiver
		args  []string
		ports []uint16 // of each datagram
		parts uint8
	}{
		"port of profile": {v4, []string{"alice@127.0.0.1"}, []uint16{2222}, 0},
		"port":            {v4, []string{"alice@127.0.0.1:443"}, []uint16{443}, 0},
		"services":        {v4, []string{"alice@127.0.0.1", "ssh", "tcp/https", "udp/53"}, []uint16{22, 443, 53}, 0},
		"IPv6":            {v6, []string{"alice@::1", "1"}, []uint16{1}, 0},
		"IPv6, port":      {v6, []string{"alice@[::1]:1"}, []uint16{1}, 0},
		"secret":          {v4, []string{"--client", "alice", "--secret", secretText, "127.0.0.1", "1"}, []uint16{1}, 0},
		"retry":           {v4, []string{"--retry", "2", "--delay", "0", "alice@127.0.0.1"}, []uint16{2222, 2222, 2222}, 0},
		"sequence":        {v4, []string{"seq@127.0.0.1"}, []uint16{22, 22, 22, 22}, 4},
		"by flags":        {v4, []string{"--method", "udp-passive-seq", "--parts", "2", "--delay", "1ms", "alice@127.0.0.1"}, []uint16{2222, 2222}, 2},
		"source":          {v4, []string{"--source", "127.0.0.3", "alice@127.0.0.1"}, []uint16{2222}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := runIn(t, "", append([]string{"send", "--json", test.to.flag()}, test.args...)...)
			got.want(t, knockcli.ExitOK)
			r := got.report(t)
			if !r.OK || r.Action != "open" || len(r.Sent) != 1 || r.Sent[0].Datagrams != len(test.ports) || len(r.Session) != 32 {
				t.Errorf("Got %+v", r)
			}
			for i, port := range test.ports {
				d := test.to.datagram(t, test.ports...)
				if d.Port != port || d.Method.String() != r.Method || d.Total != test.parts || test.parts > 0 && int(d.Index) != i || hex.EncodeToString(d.Session) != r.Session {
					t.Errorf("Datagram %d is %+v, want port %d", i, d, port)
				}
			}
		})
	}
	got := runIn(t, "", "send", v4.flag(), "-v", "alice@127.0.0.1")
	got.want(t, 0, fmt.Sprintf("127.0.0.1:%d: datagrams: 1", v4.port), "session: ")
	if want := fmt.Sprintf("Knocked at 127.0.0.1:%d by udp.\n", v4.port); got.stdout != want {
		t.Errorf("Got %q, want %q", got.stdout, want)
	}
	if got = runIn(t, "", "send", v4.flag(), "-q", "alice@127.0.0.1"); got.code != 0 || got.stdout+got.stderr != "" {
		t.Errorf("With -q: %+v", got)
	}
	got = runIn(t, "", "send", "--json", "alice@[fe80::1]:22")
	got.want(t, knockcli.ExitUnreachable, "no knock was sent")
	if r := got.report(t); r.OK || r.Error == "" || r.Sent[0].Error == "" {
		t.Errorf("Got %+v", r)
	}
}

func TestSendForeign(t *testing.T) {
	ownProfiles(t)
	r := listenUDP(t, "127.0.0.1:0")
	for _, command := range []string{"send", "close"} {
		runIn(t, "", command, "--method", "pyknock", "--secret", "ké", "--address", "2001:db8::7", r.flag(), "127.0.0.1").want(t, 0)
		p, err := wire.OpenPyknock(time.Now(), time.Hour, knockcore.NewSecret([]byte("k\xe9")), r.next(t))
		if err != nil || p.Close != (command == "close") || p.Addr != netip.MustParseAddr("2001:db8::7") {
			t.Errorf("%s: got %+v, %v", command, p, err)
		}
	}
	t.Setenv("ENCRYPTION", "hex:6b")
	t.Setenv("HMAC", "base64:aA==")
	runIn(t, "", "send", "--method", "fwknop", "--secret-env", "ENCRYPTION", "--hmac-secret-env", "HMAC", "--hmac", "md5", "--open-for", "1m",
		"--address", "source", r.flag(), "alice@127.0.0.1", "ssh", "udp/53").want(t, 0)
	keys := knockcore.FwknopKeys{Encryption: knockcore.NewSecret([]byte("k")), HMAC: knockcore.NewSecret([]byte("h")), HMACType: "md5"}
	f, err := wire.OpenFwknop(keys, r.next(t))
	if err != nil || f.User != "alice" || f.Timeout != time.Minute || fmt.Sprint(f.Ports) != "[tcp/22 udp/53]" || f.Allow != netip.IPv4Unspecified() {
		t.Errorf("Got %+v, %v", f, err)
	}
}

func TestSendUsage(t *testing.T) {
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{})
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"send":                                               {2, "requires at least 1 arg"},
		"send -4 -6 alice@h":                                 {2, "exclude each other"},
		"send --both -4 alice@h":                             {2, "exclude each other"},
		"send -q -v alice@h":                                 {2, "exclude each other"},
		"send --method http alice@h":                         {2, "no method of knocking by datagram"},
		"send alice@h":                                       {2, "for which port"},
		"send alice@h icmp/1":                                {2, "not a port to knock for"},
		"send alice@h no-such-name":                          {2, "not a port to knock for"},
		"send alice@h:1 2":                                   {2, "two places for ports"},
		"send --address x alice@h:1":                         {2, "neither an IP address nor source"},
		"send --source x alice@h:1":                          {2, "not an IP address"},
		"send --retry 100 alice@h:1":                         {2, "--retry is 0 to 99"},
		"send --address 192.0.2.1 alice@h:1":                 {3, "opens for the address that it comes from"},
		"send --parts 9 --method udp-seq alice@h:1":          {3, "2 to 8 parts"},
		"send --method fwknop alice@h:1":                     {3, "fwknop"},
		"send --method pyknock alice@h":                      {3, "pre-shared key"},
		"send --method pyknock --secret x h 22":              {2, "names no port"},
		"send --secret-file /no/such/file alice@h:1":         {3, "/no/such/file"},
		"send nobody@h:1":                                    {3, "there is none"},
		"close alice@h":                                      {2, "not possible with method udp"},
		"close --method fwknop --secret x h":                 {2, "not possible with method fwknop"},
		"open alice@h":                                       {2, "which port"},
		"open --method pyknock --secret x --frame a@h:22":    {3, "checking the secret"},
		"open --method udp-seq --parts 1 alice@127.0.0.1:22": {3, "2 to 8 parts"},
	} {
		t.Run(args, func(t *testing.T) {
			got := runIn(t, "", strings.Fields(args)...)
			got.want(t, want.code, want.text)
			if got.stdout != "" {
				t.Errorf("Standard output is %q", got.stdout)
			}
		})
	}
}

// TestOpen checks that the frame carries the session of the knock, for open,
// connect and forward's way of connecting.
func TestOpen(t *testing.T) {
	profiles := ownProfiles(t)
	server := startServer(t, new(clienttest.Server))
	r := listenUDP(t, "127.0.0.1:0")
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true, Knock: &knockclient.ProfileKnock{Port: r.port}})
	saveProfile(t, profiles, "plain", knockclient.Profile{Knock: &knockclient.ProfileKnock{Port: r.port, NoFrame: true}})

	saveProfile(t, profiles, "silent", knockclient.Profile{ServerProof: true})
	runIn(t, "", "open", "silent@"+server.Addr()).want(t, knockcli.ExitConfig, "nothing says how to knock", "Give --method udp", "connect or forward")
	if len(server.Frames()) != 0 {
		t.Error("It connected nevertheless")
	}

	got := runIn(t, "", "open", "--json", "alice@"+server.Addr())
	got.want(t, 0)
	rep, d, frames := got.report(t), r.datagram(t, server.Port), server.Frames()
	if c := rep.Connected; !rep.OK || c == nil || c.Address != server.Addr() || c.Attempts < 1 || !c.Frame {
		t.Errorf("Got %+v", rep)
	}
	if s := string(frames[0].Session); s != string(d.Session) || hex.EncodeToString(d.Session) != rep.Session {
		t.Errorf("Frame has session %x, the knock %x, the report %s", s, d.Session, rep.Session)
	}

	got = runIn(t, "hello", "connect", "alice@"+server.Addr())
	got.want(t, 0)
	d, frames = r.datagram(t, server.Port), server.Frames()
	if s := frames[1].Session; got.stdout != "you said hello" || !slices.Equal(s, d.Session) || slices.Equal(s, frames[0].Session) {
		t.Errorf("Got %q; frame has session %x, the knock %x", got.stdout, s, d.Session)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	got = runIn(t, "", "open", "plain@"+listener.Addr().String())
	got.want(t, 0)
	if want := fmt.Sprintf("Knocked at 127.0.0.1:%d by udp, connected to %v after ", r.port, listener.Addr()); !strings.HasPrefix(got.stdout, want) {
		t.Errorf("Got %q, want %q", got.stdout, want)
	}
	_ = r.next(t)
	got = runIn(t, "", "open", "--method", "pyknock", "--secret", "psk", r.flag(), listener.Addr().String())
	got.want(t, 0)
	if _, err := wire.OpenPyknock(time.Now(), time.Hour, knockcore.NewSecret([]byte("psk")), r.next(t)); err != nil {
		t.Error(err)
	}

	other := startServer(t, &clienttest.Server{Answer: clienttest.Close})
	runIn(t, "", "open", "alice@"+other.Addr()).want(t, knockcli.ExitProof, "no server proof")
	_ = listener.Close() // nobody listens there any more
	runIn(t, "", "open", "--connect-timeout", "100ms", "plain@"+listener.Addr().String()).want(t, knockcli.ExitUnreachable, "Nobody answers to knocks")
}
