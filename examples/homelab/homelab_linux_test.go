// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package homelab

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/browser"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

//go:embed Caddyfile
var caddyfile string

func TestMain(m *testing.M) { program.Main(m) }

// films is an application as people have them at home.
const films = `<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Media</title><link rel="icon" href="data:,">
<style>body{margin:0;padding:1.25rem;background:#101418;color:#e9eef2;font:1rem/1.5 system-ui,sans-serif}h1{font-size:1.4rem}
ul{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:1fr 1fr;gap:1rem}li{aspect-ratio:2/3;border-radius:.8rem;padding:1rem;display:flex;align-items:end;font-weight:600}
li:nth-child(1){background:linear-gradient(#31566b,#16242d)}li:nth-child(2){background:linear-gradient(#7a4a3a,#2a1813)}li:nth-child(3){background:linear-gradient(#4d5f36,#1c2413)}li:nth-child(4){background:linear-gradient(#5a4476,#1f162b)}</style>
<h1>Films</h1><ul><li>The Long Way Home</li><li>Red Harbour</li><li>A Garden in May</li><li>Night Ferry</li></ul></html>`

// home is the house: a Caddy with the example's configuration, an application and an
// sshd, and the phone outside, with a browser.
type home struct {
	house, phone *netlab.NS
	caddy        *program.Process
	*browser.Browser
}

const phone4, phone6 = "192.0.2.2", "2001:db8::2"

func start(t *testing.T) *home {
	t.Helper()
	netlab.Need(t, "nft", "chromium", "curl")
	sshd := program.Need(t, "sshd")
	lab := netlab.New(t)
	h := &home{house: lab.NS("house"), phone: lab.NS("phone")}
	lab.Link(h.house, []string{"192.0.2.1/24", "2001:db8::1/64"}, h.phone, []string{phone4 + "/24", phone6 + "/64"})
	dir := t.TempDir()

	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(films))
	})}
	listener := h.house.Listen("127.0.0.1:8096")
	go func() { _ = app.Serve(listener) }()
	t.Cleanup(func() { _ = app.Close() })

	_ = os.MkdirAll("/run/sshd", 0o755)
	hostKey := filepath.Join(dir, "host")
	program.Run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey)
	program.Start(t, h.house.Command(context.Background(), sshd, "-D", "-e", "-f", "/dev/null", "-h", hostKey, "-o", "PidFile=none"))

	file := filepath.Join(dir, "Caddyfile")
	text := strings.Replace(caddyfile, "\tadmin localhost:2019\n", "\tadmin localhost:2019\n\tlocal_certs\n\tskip_install_trust\n", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := h.house.Command(context.Background(), program.Caddy(t), "run", "--config", file)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	h.caddy = program.Start(t, cmd)
	t.Cleanup(func() { _ = h.caddy.Process.Signal(os.Interrupt); <-h.caddy.Ended })
	for _, name := range []string{"knock", "v6.knock", "media"} { // certificates come behind the listener
		h.caddy.Await(t, "the certificate of "+name, func() bool {
			_, err := h.phone.Try("curl", "-sk", "-o", "/dev/null", "--resolve", name+".example.com:443:192.0.2.1", "https://"+name+".example.com/")
			return err == nil
		})
	}
	h.Browser = browser.Start(t, "MAP v6.knock.example.com [2001:db8::1], MAP *.example.com 192.0.2.1", "ip", "netns", "exec", h.phone.Name)
	return h
}

// ssh tells what the phone sees of the house's SSH at the address. It is patient if
// something should answer.
func (h *home) ssh(t *testing.T, from, address string, want netlab.State) netlab.State {
	t.Helper()
	timeout := netlab.ProbeTimeout
	if want == netlab.Open {
		timeout = 10 * time.Second
	}
	state, err := h.phone.ProbeFrom("tcp", from, address, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func (h *home) expect(t *testing.T, what string, want netlab.State) {
	t.Helper()
	if four, six := h.ssh(t, phone4, "192.0.2.1:22", want), h.ssh(t, phone6, "[2001:db8::1]:22", want); four != want || six != want {
		t.Errorf("%s, SSH is %s over IPv4 and %s over IPv6 instead of %s", what, four, six, want)
	}
}

// media is the status that the media server answers the phone with.
func (h *home) media() string {
	return h.phone.Run("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", "media.example.com:443:192.0.2.1", "https://media.example.com/")
}

// picture keeps a picture for the README if UPDATE_SCREENSHOTS=1.
func picture(t *testing.T, tab *browser.Tab, name string) {
	t.Helper()
	if os.Getenv("UPDATE_SCREENSHOTS") == "1" {
		if err := os.WriteFile(name+".png", tab.Shot(), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// TestPhone: a phone is invited, taps once, and is in: at the application, and at SSH
// through the firewall, by both families. Closing closes both.
func TestPhone(t *testing.T) {
	h := start(t)
	tab := h.Tab(t, 360, 740)
	h.expect(t, "before", netlab.Filtered)
	if status := h.media(); status != "404" {
		t.Errorf("a stranger at the media server gets %s", status)
	}

	invited := h.house.Run(program.Caddy(t), "knock", "invite", "admin")
	link := regexp.MustCompile(`https://knock\.example\.com/join#\S+`).FindString(invited)
	tab.Go(link)
	tab.AwaitText("You are invited")
	picture(t, tab, "invited")
	tab.Click("#join button")
	tab.Await("it to be open", "document.querySelector('main[data-here]')")
	tab.AwaitText(phone6)
	tab.Await("both families", fmt.Sprintf("[...document.querySelectorAll('.rows .name')].some((e) => e.textContent.startsWith(%q))", phone6))
	tab.Await("quiet", "!document.querySelector('[aria-busy]')")
	picture(t, tab, "open")
	h.expect(t, "after the tap", netlab.Open)
	conn, err := h.phone.Dial("tcp", "192.0.2.1:22", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	banner := make([]byte, 7)
	if _, err := conn.Read(banner); err != nil || string(banner) != "SSH-2.0" {
		t.Errorf("SSH says %q, %v", banner, err)
	}
	if rules := h.house.Run("nft", "list", "ruleset"); !strings.Contains(rules, phone4) || !strings.Contains(rules, phone6) {
		t.Errorf("the addresses are not in the ruleset:\n%s", rules)
	}
	tab.Go("https://media.example.com/")
	tab.AwaitText("Red Harbour")
	picture(t, tab, "media")

	tab.Go("https://knock.example.com/")
	tab.Await("it to be open", "document.querySelector('main[data-here]')")
	tab.Click("#close")
	tab.Await("it to be closed", "document.getElementById('open')")
	tab.Await("quiet", "!document.querySelector('[aria-busy]')")
	picture(t, tab, "closed")
	h.expect(t, "after closing", netlab.Filtered)
	if status := h.media(); status != "404" {
		t.Errorf("after closing, the media server answers %s", status)
	}
}
