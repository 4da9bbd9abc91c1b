// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// object is JSON.
type object = map[string]any

// past is a Caddy whose clock the test sets: the ready build, but for that.
type past struct {
	clock       string // the file that holds the time
	admin, port string
	caddy       *program.Process
	http        *http.Client
	count       int // of configurations and sentinels
}

func newPast(t *testing.T) *past {
	if testing.Short() {
		t.Skip("links another Caddy")
	}
	dir := t.TempDir()
	p := &past{
		clock: filepath.Join(dir, "clock"), admin: program.FreeAddress(t), port: fmt.Sprint(program.FreePort(t)),
		http: &http.Client{Transport: program.Persistent(http.DefaultTransport)},
	}
	p.set(t, time.Now())
	binary := filepath.Join(dir, "caddy")
	const module = "github.com/caddy-knock/caddy-knock"
	build := exec.Command("go", "build", "-o", binary, "-ldflags", "-X "+module+"/knockcore/knockapp.testClock="+p.clock, module+"/xcaddy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cfg, _ := json.Marshal(object{"admin": object{"listen": p.admin, "config": object{"persist": false}}})
	file := filepath.Join(dir, "caddy.json")
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "run", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	p.caddy = program.Start(t, cmd)
	p.caddy.AwaitListener(t, p.admin)
	return p
}

// set sets the clock; the file is never half written.
func (p *past) set(t *testing.T, now time.Time) {
	t.Helper()
	if err := os.WriteFile(p.clock+".new", strconv.AppendInt(nil, now.UnixNano(), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.clock+".new", p.clock); err != nil {
		t.Fatal(err)
	}
}

const sentinelKey = "the pyknock key of the sentinel"

// load runs a configuration with an empty memory of knocks. A sentinel and its
// service come on top.
func (p *past) load(t *testing.T, clients, services []object, source, more object) {
	t.Helper()
	p.count++
	var names []string
	for _, s := range services {
		names = append(names, s["name"].(string))
	}
	for _, c := range clients {
		c["services"], c["allow_weak"], c["allow_remote"] = names, true, object{"ipv4": 32, "ipv6": 128}
	}
	source["source"], source["listen"] = "udp", []string{"127.0.0.1:" + p.port}
	source["workers"] = 1 // so that the sentinel stays behind what it follows
	app := object{
		"clients":  append(clients, object{"id": "sentinel", "services": []string{"sentinel"}, "pyknock": []string{sentinelKey}}),
		"services": append(services, object{"name": "sentinel", "ports": []string{"udp/9"}}),
		"sources":  []object{source}, "allow_local": true,
		"store": object{"store": "memory", "nonces": 1000 + p.count}, // another one
	}
	for k, v := range more {
		app[k] = v
	}
	body, err := json.Marshal(object{
		"admin": object{"listen": p.admin, "config": object{"persist": false}}, "apps": object{"knock": app},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := p.http.Post("http://"+p.admin+"/load", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		t.Fatalf("loading: %s", text)
	}
}

// play sends a datagram from an address and tells how it was decided: "ok" for
// each grant, or the reason; nothing for knocks that close and for parts of
// others. A knock of the sentinel, which the only worker decides on after it, shows
// when that is.
func (p *past) play(t *testing.T, now time.Time, from netip.Addr, payload []byte) (decisions map[string]int) {
	t.Helper()
	p.set(t, now)
	to, _ := netip.ParseAddrPort("127.0.0.1:" + p.port)
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before, sentinels := p.counters(t)
	p.count++
	mark := wire.Pyknock{Addr: from, Time: wire.PyknockTime(now) + float64(p.count%1000)/1e4}
	last, err := mark.Seal(secret(sentinelKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{payload, last} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	p.caddy.Await(t, "the sentinel", func() bool {
		_, n := p.counters(t)
		return n > sentinels
	})
	// One look at the metrics may show the sentinel and not what came before it: the
	// next one shows both.
	after, _ := p.counters(t)
	decisions = make(map[string]int)
	for reason, n := range after {
		if n -= before[reason]; n > 0 {
			decisions[reason] = n
		}
	}
	if decisions["ok"]--; decisions["ok"] == 0 {
		delete(decisions, "ok")
	}
	return decisions
}

// counters are how knocks were decided so far, and how often the sentinel was let
// in.
func (p *past) counters(t *testing.T) (decided map[string]int, sentinels int) {
	t.Helper()
	answer, err := p.http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	decided = make(map[string]int)
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		n, _ := strconv.Atoi(value)
		switch {
		case strings.HasPrefix(name, "caddy_knock_knocks_total{"):
			_, reason, _ := strings.Cut(name, `reason="`)
			decided[strings.TrimSuffix(reason, `"`)] += n
		case strings.HasPrefix(name, "caddy_knock_grants_total{") && strings.Contains(name, `service="sentinel"`):
			sentinels += n
		}
	}
	return decided, sentinels
}

// hexBytes is JSON text in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func (h hexBytes) secret() string { return "hex:" + hex.EncodeToString(h) }

func loadVectors(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../wire/testdata/" + name)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}
