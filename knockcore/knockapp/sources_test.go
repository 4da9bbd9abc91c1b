// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

const datagramSecret = "a secret of alice, long enough"

// withSource is a Caddyfile with an UDP source; more goes into the knock block.
func withSource(listen, options, more string) string {
	return fmt.Sprintf(`{
	admin off
	knock {
		client alice {
			secret "%s"
			pyknock "the pyknock key of alice"
			fwknop "a fwknop key of alice" "the HMAC key of alice"
			services all
		}
		service web tcp/443
		source udp %s {
			%s
		}
		store memory
		allow_local
		%s
	}
}
`, datagramSecret, listen, options, more)
}

// freeUDP finds a port that nobody has.
func freeUDP(t testing.TB) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

func datagram(t testing.TB) []byte {
	t.Helper()
	d := wire.Datagram{Method: knockcore.MethodUDP, Port: 443, Time: time.Now().UnixMilli()}
	b, err := d.Seal(&knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte(datagramSecret))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sender is a socket that knocks from an address of its own, which is returned.
func sender(t testing.TB, to string) (*net.UDPConn, netip.Addr) {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

func isIn(t testing.TB, addr netip.Addr) bool {
	t.Helper()
	return knockcore.NewQuery([]string{"web"}, nil).Match(apptest.App(t).Running().State().Table, addr)
}

func TestSourceTakesEachMethod(t *testing.T) {
	port := freeUDP(t)
	for name, payload := range map[string]func(netip.Addr) []byte{
		"udp": func(netip.Addr) []byte { return datagram(t) },
		"pyknock": func(me netip.Addr) []byte {
			b, err := (&wire.Pyknock{Addr: me, Time: wire.PyknockTime(time.Now())}).Seal(knockcore.NewSecret([]byte("the pyknock key of alice")))
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		"fwknop": func(netip.Addr) []byte {
			f := wire.Fwknop{
				User: "alice", Type: wire.FwknopAccess, Time: time.Now().Unix(), Allow: netip.IPv4Unspecified(),
				Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 443, High: 443}},
			}
			b, err := f.Seal(knockcore.FwknopKeys{
				Encryption: knockcore.NewSecret([]byte("a fwknop key of alice")), HMAC: knockcore.NewSecret([]byte("the HMAC key of alice")),
			})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			t.Run(name+" "+host, func(t *testing.T) {
				apptest.Load(t, withSource(":"+port, "", ""))
				c, me := sender(t, net.JoinHostPort(host, port))
				if isIn(t, me) {
					t.Fatal("is in from the beginning")
				}
				if _, err := c.Write(payload(me)); err != nil {
					t.Fatal(err)
				}
				apptest.Await(t, "a grant", func() bool { return isIn(t, me) })
				_ = caddy.Stop()
			})
		}
	}
}

// TestSourceErrors loads sources and keys that must be refused.
func TestSourceErrors(t *testing.T) {
	key := `"sixteen bytes or more"`
	for name, c := range map[string]struct{ lines, want string }{
		"no port":              {"source udp 127.0.0.1", `Caddyfile:4: expect :62201`},
		"port 0":               {"source udp :0", `Caddyfile:4: expect :62201`},
		"host name":            {"source udp localhost:1", `Caddyfile:4: expect :62201`},
		"mapped":               {"source udp [::ffff:192.0.2.1]:1", `Caddyfile:4: expect :62201`},
		"unknown source":       {"source pigeon", `Caddyfile:4: knock.sources.pigeon`},
		"unknown option":       {"source udp {\n verdict drop\n}", `Caddyfile:5: unknown option "verdict"; expect methods`},
		"bad method":           {"source udp {\n methods smoke\n}", `Caddyfile:5: unknown method`},
		"other method":         {"source udp {\n methods tcp-syn\n}", `method tcp-syn does not arrive here; expect [udp udp-seq pyknock fwknop]`},
		"method off":           {"methods http\nsource udp {\n methods udp\n}", `method udp is not among the methods that are enabled`},
		"all methods off":      {"methods http\nsource udp", `none of [udp udp-seq pyknock fwknop] is among`},
		"twice":                {"source udp :7\nsource udp 192.0.2.1:7", `source 192.0.2.1:7 would get the packets of source :7`},
		"twice in one":         {"source udp 0.0.0.0:7 :7", `source :7 would get the packets of source 0.0.0.0:7`},
		"sequence too long":    {"source udp {\n sequence 9\n}", `Caddyfile:5: from 2 to 8`},
		"sequence in words":    {"source udp {\n sequence 3x\n}", `Caddyfile:5: from 2 to 8`},
		"sequence window":      {"source udp {\n sequence 3 soon\n}", `Caddyfile:5: positive duration`},
		"frame too big":        {"source udp {\n max_frame 5000\n}", `2048 bytes at most`},
		"no such service":      {"source udp {\n pyknock_services ftp\n}", `there is no service "ftp"`},
		"negative":             {"source udp {\n queue -1\n}", `Caddyfile:5: positive whole number`},
		"short pyknock key":    {"client a {\n pyknock short\n}", "Caddyfile:5: `allow_weak`"},
		"wide pyknock key":     {"client a {\n pyknock ключключключключключ\n}", "Caddyfile:5: latin-1"},
		"no pyknock key":       {"client a {\n pyknock\n}", "Caddyfile:5: at least one argument"},
		"empty pyknock key":    {"client a {\n pyknock \"\"\n allow_weak\n}", "Caddyfile:5: empty"},
		"same pyknock key":     {"client a {\n pyknock " + key + "\n}\nclient b {\n pyknock " + key + "\n}", "clients a and b have the same pyknock key"},
		"one fwknop key":       {"client a {\n fwknop " + key + "\n}", "Caddyfile:5: takes an encryption key, an HMAC key"},
		"short fwknop key":     {"client a {\n fwknop short " + key + "\n}", "Caddyfile:5: `allow_weak`"},
		"long fwknop key":      {"client a {\n fwknop \"" + strings.Repeat("k", 33) + "\" " + key + "\n}", "Caddyfile:5: it must have 1 to 32"},
		"equal fwknop keys":    {"client a {\n fwknop " + key + " " + key + "\n}", "Caddyfile:5: must not be the same"},
		"unknown HMAC":         {"client a {\n fwknop \"0123456789abcdef\" " + key + " crc32\n}", "Caddyfile:5: expect md5"},
		"unknown HMAC, hidden": {"client a {\n fwknop {env.A} {env.B} crc32\n}", "Caddyfile:5: expect md5"},
		"weak after all":       {"client a {\n pyknock short\n expires 2099-01-01\n}", "Caddyfile:5: `allow_weak`"},
		"remote in words":      {"client a {\n allow_remote yes\n}", "Caddyfile:5: length of a prefix"},
		"remote without slash": {"client a {\n allow_remote 24\n}", "Caddyfile:5: length of a prefix"},
		"remote: everything":   {"client a {\n allow_remote /0\n}", "Caddyfile:5: length of a prefix"},
		"remote: order":        {"client a {\n allow_remote /64 /24\n}", "Caddyfile:5: such as `allow_remote /24 /64`"},
		"remote: none":         {"client a {\n allow_remote\n}", "Caddyfile:5: such as `allow_remote /24 /64`"},
		"unset placeholder":    {"client a {\n pyknock {env.KNOCK_TEST_NOT_SET}\n}", "Caddyfile:4: KNOCK_TEST_NOT_SET is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			err := apptest.TryLoad(t, "{\n\tadmin off\n\tknock {\n"+c.lines+"\nservice s tcp/1\nstore memory\n\t}\n}\n")
			if err == nil {
				t.Fatal("was loaded")
			}
			place, text, placed := strings.Cut(c.want, ": ")
			if !placed || !strings.HasPrefix(place, "Caddyfile") {
				place, text = "", c.want
			}
			if !strings.Contains(err.Error(), place) || !strings.Contains(err.Error(), text) {
				t.Errorf("got  %v\nwant %s … %s", err, place, text)
			}
			if strings.Contains(err.Error(), "sixteen") {
				t.Error("the message tells the key")
			}
		})
	}
}

func TestDatagramKeysOfAClient(t *testing.T) {
	t.Setenv("KNOCK_TEST_PSK", "clé de pyknock à seize")
	apptest.Load(t, `{
	admin off
	knock {
		client alice {
			pyknock {env.KNOCK_TEST_PSK} short
			fwknop base64:MDEyMzQ1Njc4OWFiY2RlZg== hex:00112233445566778899aabbccddeeff sha512
			fwknop tiny "another tiny"
			allow_remote /24 /64
			allow_weak
		}
		client bob {
			allow_remote /64
		}
		client carol {
			allow_remote /32
		}
		store memory
	}
}
`)
	ring := apptest.App(t).Running().Keyring()
	alice := ring.Client("alice")
	if len(alice.Pyknock) != 2 || string(alice.Pyknock[0].Bytes()) != "cl\xe9 de pyknock \xe0 seize" {
		t.Error("the pyknock key was not read as latin-1")
	}
	if len(alice.Fwknop) != 2 || alice.Fwknop[0].HMACType != "sha512" || string(alice.Fwknop[0].Encryption.Bytes()) != "0123456789abcdef" ||
		!bytes.Equal(alice.Fwknop[0].HMAC.Bytes(), []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")) {
		t.Error("the fwknop keys were not read")
	}
	for id, want := range map[string][2]int{"alice": {24, 64}, "bob": {0, 64}, "carol": {32, 0}} {
		if c := ring.Client(id); c.RemoteBits4 != want[0] || c.RemoteBits6 != want[1] {
			t.Errorf("%s may knock for /%d and /%d, want %v", id, c.RemoteBits4, c.RemoteBits6, want)
		}
	}
	for _, b := range []string{fmt.Sprintf("%+v", alice), fmt.Sprintf("%#v", alice)} {
		if strings.Contains(b, "0123456789abcdef") || strings.Contains(b, "pyknock à") {
			t.Error("a key shows")
		}
	}
}

// TestSourcesOverReloads knocks all the time while configurations come and go,
// good ones, ones that fail, and ones that listen elsewhere besides. Each knock
// must become a grant or a renewal.
func TestSourcesOverReloads(t *testing.T) {
	port, second := freeUDP(t), freeUDP(t)
	adapt := func(listen, options string) []byte {
		cfg, err := apptest.Adapt(withSource(listen, options, ""))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := caddy.Load(adapt(":"+port, ""), true); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	c, me := sender(t, "127.0.0.1:"+port)
	granted := func() uint64 { return knocksOf("udp", "ok") }
	first := granted()
	stop, sent := make(chan struct{}), make(chan uint64)
	go func() {
		n := uint64(0)
		defer func() { sent <- n }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if _, err := c.Write(datagram(t)); err == nil {
				n++
			}
		}
	}()
	withFailing := func(cfg []byte) []byte {
		var v map[string]any
		if err := json.Unmarshal(cfg, &v); err != nil {
			t.Fatal(err)
		}
		v["apps"].(map[string]any)["failing"] = map[string]bool{"starting": true}
		cfg, _ = json.Marshal(v)
		return cfg
	}
	configs := [][]byte{
		adapt(":"+port, "queue 2000"),
		adapt(":"+port+" :"+second, "workers 3"),
		withFailing(adapt(":"+second+" :"+port, "queue 3000")),
		adapt("127.0.0.1:"+port, ""), // narrower: a new socket
		withFailing(adapt(":"+port, "")),
		adapt(":"+port, ""), // wider again
	}
	for i := range 30 {
		cfg := configs[i%len(configs)]
		if err := caddy.Load(cfg, true); (err != nil) != bytes.Contains(cfg, []byte("failing")) {
			t.Fatalf("configuration %d: %v", i%len(configs), err)
		}
	}
	close(stop)
	n := <-sent
	apptest.Await(t, "all knocks to be decided", func() bool { return granted()-first >= n })
	if got := granted() - first; got != n {
		t.Errorf("%d knocks, %d granted", n, got)
	}
	if n < 30 || !isIn(t, me) {
		t.Errorf("only %d knocks were made", n)
	}
	apptest.Await(t, "the goroutines of old configurations to end", func() bool { return runtime.NumGoroutine() <= before+2 })
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	// Nothing holds the port any more.
	free, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
}

// TestSequenceOverReload: the parts of one knock come before and after a reload.
func TestSequenceOverReload(t *testing.T) {
	port := freeUDP(t)
	cfg := withSource(":"+port, "sequence 2 1m", "")
	apptest.Load(t, cfg)
	c, me := sender(t, "127.0.0.1:"+port)
	for i := range 2 {
		d := wire.Datagram{
			Method: knockcore.MethodUDPSeq, Port: 443, Time: time.Now().UnixMilli(),
			Sequence: true, SequenceID: [16]byte{1}, Index: uint8(i), Total: 2,
		}
		b, err := d.Seal(&knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte(datagramSecret))})
		if err != nil {
			t.Fatal(err)
		}
		if isIn(t, me) {
			t.Fatal("in too early")
		}
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		apptest.Load(t, strings.Replace(cfg, "sequence 2 1m", fmt.Sprintf("sequence 2 1m\n\t\t\tqueue %d", 100+i), 1))
	}
	apptest.Await(t, "a grant", func() bool { return isIn(t, me) })
}

// TestPortTaken: a port that another program has is an error, and what ran before
// goes on.
func TestPortTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.LocalAddr().String())
	own := freeUDP(t)
	apptest.Load(t, withSource(":"+own, "", ""))
	if err := apptest.TryLoad(t, withSource(":"+own+" :"+port, "", "")); err == nil || !strings.Contains(err.Error(), "listening on udp 0.0.0.0:"+port) {
		t.Fatalf("%v", err)
	}
	c, me := sender(t, "127.0.0.1:"+own)
	if _, err := c.Write(datagram(t)); err != nil {
		t.Fatal(err)
	}
	apptest.Await(t, "a grant", func() bool { return isIn(t, me) })
}
