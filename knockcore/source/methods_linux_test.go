// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

const (
	libknockSecret = "the libknock secret of alice"
	pyknockKey     = "the pyknock key of alice"
	fwknopKey      = "a fwknop key of alice"
	fwknopHMAC     = "the fwknop HMAC key of alice"
)

const methodsBlock = `
		client alice {
			secret "` + libknockSecret + `"
			pyknock "` + pyknockKey + `"
			fwknop "` + fwknopKey + `" "` + fwknopHMAC + `"
			services ssh
			ttl 10m
		}
		service ssh tcp/2222
		service db tcp/5432
		source udp :62201`

// pyknockProgram makes a datagram as pyknock-datagram.md section 1 says, sends it
// and prints it.
const pyknockProgram = `
import hashlib, hmac, socket, struct, sys, time
key, signed, server, offset = sys.argv[1].encode("latin-1"), sys.argv[2], sys.argv[3], float(sys.argv[4])
family = socket.AF_INET6 if ":" in signed else socket.AF_INET
body = struct.pack("<Bdi", 1, time.time() + offset, family) + socket.inet_pton(family, signed)
packet = hmac.new(key, body, hashlib.sha256).digest() + body
to = socket.AF_INET6 if ":" in server else socket.AF_INET
socket.socket(to, socket.SOCK_DGRAM).sendto(packet, (server, 62201))
print(packet.hex())
`

// knocker is one way to knock for real. knock sends a knock from the client's
// namespace and returns its datagrams; make makes variants without sending, for
// what a genuine client does not do.
type knocker struct {
	knock func(server, client netip.Addr) [][]byte
	make  func(client netip.Addr, v variant) [][]byte
	// ipv4 says that the protocol has no IPv6.
	ipv4 bool
}

// variant is what is wrong with a knock.
type variant struct {
	key     bool // somebody else's
	age     time.Duration
	service bool // one that the client may not reach
}

func knockers(t *testing.T, s *site) map[string]knocker {
	t.Helper()
	fwknop, python := program.Need(t, "fwknop"), program.Need(t, "python3")
	id := byte(0)
	libknock := func(method knockcore.Method) func(netip.Addr, variant) [][]byte {
		return func(_ netip.Addr, v variant) [][]byte {
			d := wire.Datagram{Method: method, Port: 2222, Time: time.Now().Add(-v.age).UnixMilli(), Total: 1}
			if v.service {
				d.Port = 5432
			}
			if d.NeedsSequence() {
				id++
				d.Sequence, d.Total, d.SequenceID = true, 3, [16]byte{id}
			}
			cred := credential("alice", libknockSecret)
			if v.key {
				cred = credential("alice", "the secret of a stranger")
			}
			var parts [][]byte
			for ; d.Index < d.Total; d.Index++ {
				b, err := d.Seal(cred)
				if err != nil {
					t.Fatal(err)
				}
				parts = append(parts, b)
			}
			return parts
		}
	}
	sent := func(build func(netip.Addr, variant) [][]byte) func(server, client netip.Addr) [][]byte {
		return func(server, client netip.Addr) [][]byte {
			parts := build(client, variant{})
			s.send(s.client, server, parts...)
			return parts
		}
	}
	return map[string]knocker{
		"udp":     {knock: sent(libknock(knockcore.MethodUDP)), make: libknock(knockcore.MethodUDP)},
		"udp-seq": {knock: sent(libknock(knockcore.MethodUDPSeq)), make: libknock(knockcore.MethodUDPSeq)},
		"pyknock": {
			knock: func(server, client netip.Addr) [][]byte {
				out := s.client.Run(python, "-c", pyknockProgram, pyknockKey, client.String(), server.String(), "0")
				b, err := hex.DecodeString(strings.TrimSpace(out))
				if err != nil {
					t.Fatal(err)
				}
				return [][]byte{b}
			},
			make: func(client netip.Addr, v variant) [][]byte {
				p := wire.Pyknock{Addr: client, Time: wire.PyknockTime(time.Now().Add(-v.age))}
				if v.service { // it names none: another address is what it may not ask for
					p.Addr = netip.MustParseAddr("203.0.113.9")
				}
				key := pyknockKey
				if v.key {
					key = "the key of a stranger"
				}
				b, err := p.Seal(secret(key))
				if err != nil {
					t.Fatal(err)
				}
				return [][]byte{b}
			},
		},
		"fwknop": {
			ipv4: true,
			knock: func(server, client netip.Addr) [][]byte {
				file := filepath.Join(s.dir, "packet")
				_ = os.Remove(file)
				s.client.Run("env", "HOME="+s.dir, fwknop, "--no-rc-file", "--no-save-args", "-A", "tcp/2222", "-a", client.String(), "-D", server.String(), "-p", "62201",
					"--key-rijndael", fwknopKey, "--key-hmac", fwknopHMAC, "--use-hmac", "--save-packet", file)
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				return [][]byte{bytes.TrimSpace(b)}
			},
			make: func(client netip.Addr, v variant) [][]byte {
				f := wire.Fwknop{
					User: "alice", Type: wire.FwknopAccess, Allow: client, Time: time.Now().Add(-v.age).Unix(),
					Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 2222, High: 2222}},
				}
				if v.service {
					f.Ports[0].Low, f.Ports[0].High = 5432, 5432
				}
				keys := knockcore.FwknopKeys{Encryption: secret(fwknopKey), HMAC: secret(fwknopHMAC)}
				if v.key {
					keys.HMAC = secret("the HMAC key of a stranger")
				}
				b, err := f.Seal(keys)
				if err != nil {
					t.Fatal(err)
				}
				return [][]byte{b}
			},
		},
	}
}

// TestMethodsForReal knocks with real clients at a real Caddy, over IPv4 and IPv6,
// and comes with all kinds of knocks that are not good. Nothing is ever sent back.
func TestMethodsForReal(t *testing.T) {
	s := newSite(t, methodsBlock, gated)
	answers := watchAnswers(t, s.server)
	for name, k := range knockers(t, s) {
		for _, ends := range [][3]netip.Addr{{server4, client4, stranger4}, {server6, client6, stranger6}} {
			server, client := ends[0], ends[1]
			if k.ipv4 && !client.Is4() {
				continue
			}
			family := "IPv6"
			if client.Is4() {
				family = "IPv4"
			}
			t.Run(name+" "+family, func(t *testing.T) {
				outer := s.t
				s.t = t
				defer func() { s.t = outer }()
				s.revoke()
				nobody := func(when string) {
					t.Helper()
					if s.isIn(s.client, server) || s.isIn(s.stranger, server) {
						t.Fatalf("%s: somebody is in", when)
					}
				}
				refused := func(what, reason string, ns string, parts [][]byte) {
					t.Helper()
					from := s.client
					if ns == "stranger" {
						from = s.stranger
					}
					s.expect(reason, len(parts), func() { s.send(from, server, parts...) })
					nobody(what)
				}
				nobody("at first")
				refused("a stranger", "unknown_client", "stranger", k.make(client, variant{key: true}))
				refused("the client's address with a stranger's key", "unknown_client", "client", k.make(client, variant{key: true}))
				refused("an old knock", "stale", "client", k.make(client, variant{age: 5 * time.Minute}))
				refused("one from the future", "future", "client", k.make(client, variant{age: -5 * time.Minute}))
				refused("one for another service", "forbidden", "client", k.make(client, variant{service: true}))
				tampered := k.make(client, variant{})
				for _, b := range tampered {
					at := &b[len(b)-2]
					switch {
					case name != "fwknop":
						*at ^= 1
					case *at == 'B': // it must stay base64
						*at = 'C'
					default:
						*at = 'B'
					}
				}
				// The HMAC of pyknock covers what was changed; libknock's hint fits still.
				reason := map[string]string{"udp": "auth_failed", "udp-seq": "auth_failed"}[name]
				if reason == "" {
					reason = "unknown_client"
				}
				refused("a tampered one", reason, "client", tampered)

				parts := k.knock(server, client)
				s.caddy.Await(t, "the client to be in", func() bool { return s.isIn(s.client, server) })
				if s.isIn(s.stranger, server) {
					t.Error("the stranger is in as well")
				}
				s.revoke()
				refused("a replay", "replay", "client", parts)
				refused("a replay by a stranger", map[bool]string{true: "forbidden", false: "replay"}[name == "pyknock" || name == "fwknop"], "stranger", parts)
				for _, tail := range []string{"=", "==", "\n", "\x00"} {
					var longer [][]byte
					for _, b := range parts {
						longer = append(longer, append(bytes.Clone(b), tail...))
					}
					refused("a re-encoded replay", "malformed", "client", longer)
				}
			})
		}
	}
	if sent := answers(); len(sent) > 0 {
		t.Errorf("the server sent %d packets of its own: %v", len(sent), sent[:min(len(sent), 5)])
	}
	// The watch must be able to see something: here is a port that does answer.
	c := s.dialUDP(s.client, netip.AddrPortFrom(server4, 62202))
	defer c.Close()
	_, _ = c.Write([]byte("is anybody there?"))
	_, _ = c.Read(make([]byte, 1)) // the refusal
	if len(answers()) == 0 {
		t.Error("the watch sees nothing where there is something to see")
	}
}
