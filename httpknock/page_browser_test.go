// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/browser"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// phone is the size of a small phone's screen.
const phoneWidth, phoneHeight = 360, 740

// pageSite is a Caddy with a page, and a browser.
type pageSite struct {
	caddy *program.Process
	*browser.Browser
	dir, admin, port string
	text             string // its Caddyfile
	url              string // of the page
}

const pageCaddyfile = `{
	admin %s
	skip_install_trust
	default_bind 127.0.0.1 [::1]
	auto_https disable_redirects
	http_port %d
	knock {
		store memory
		allow_local
		client phone {
			api_key ` + phoneKey + `
			services jellyfin ssh
			max_ttl 8h
			allow_remote /24 /64
		}
		client brief {
			api_key ` + guestKey + `
			services short
		}
		client family {
			services jellyfin
		}
		service jellyfin tcp/8096 {
			open_for 1h
		}
		service ssh tcp/2222 {
			open_for 1h
			max_open 1h
		}
		service short tcp/2223 {
			open_for 4s
			max_open 4s
		}
	}
}
https://knock.test:%s, https://v6.knock.test:%[3]s {
	tls internal
	log
	knock {
		page https://knock.test:%[3]s {
			v4 https://knock.test:%[3]s
			v6 https://v6.knock.test:%[3]s
		}
		rate_limit off
	}
}
https://sub.test:%[3]s {
	tls internal
	handle_path /gate/* {
		knock {
			page
			rate_limit off
		}
	}
	redir /gate /gate/
	respond 404
}
`

func startPage(t *testing.T) *pageSite {
	t.Helper()
	s := &pageSite{dir: t.TempDir(), admin: program.FreeAddress(t), port: fmt.Sprint(program.FreePort(t))}
	s.text = fmt.Sprintf(pageCaddyfile, s.admin, program.FreePort(t), s.port)
	s.start(t)
	s.Browser = browser.Start(t, "MAP knock.test 127.0.0.1, MAP sub.test 127.0.0.1, MAP v6.knock.test [::1]")
	s.url = "https://knock.test:" + s.port + "/"
	return s
}

// start starts its Caddy, again after Kill.
func (s *pageSite) start(t *testing.T) {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", s.port)
	s.caddy = program.StartCaddy(t, s.dir, s.text, address)
	awaitCertificates(t, s.caddy, address, "knock.test", "v6.knock.test", "sub.test")
}

// shot keeps a picture for whoever wants to look: KNOCK_SHOTS names a folder.
func shot(t *testing.T, tab *browser.Tab, name string) {
	if dir := os.Getenv("KNOCK_SHOTS"); dir != "" {
		if err := os.WriteFile(dir+"/"+name+".png", tab.Shot(), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// TestPage uses the page as people do, in a real Chromium.
func TestPage(t *testing.T) {
	s := startPage(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"key", s.testKey},
		{"open", s.testOpen},
		{"expiry", s.testExpiry},
		{"options", s.testOptions},
		{"auto", s.testAuto},
		{"invitation", s.testInvitation},
		{"plain", s.testPlain},
		{"sub-path", s.testSubPath},
		{"offline", s.testOffline},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.command(t, "revoke", "--all")
			c.run(t)
		})
	}
	if log := s.caddy.Log.String(); strings.Contains(log, phoneKey) || strings.Contains(log, guestKey) {
		t.Error("the log has a key")
	}
}

const (
	isKnown = "document.querySelector('main[data-known]')"
	isHere  = "document.querySelector('main[data-here]')"
	isIdle  = "!document.querySelector('[aria-busy]')"
)

// enter enters a key.
func (s *pageSite) enter(tab *browser.Tab, url, key string) {
	tab.Go(url)
	tab.AwaitText("enter it here")
	tab.Type("#key", key)
	tab.Click("#key-form button")
	tab.Await("the page", isKnown)
	tab.Await("quiet", isIdle)
}

// testKey: a wrong key is refused, a right one is kept where scripts don't see it,
// and forgotten when asked to.
func (s *pageSite) testKey(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	tab.Tolerate("status of 401")
	tab.Go(s.url)
	tab.AwaitText("enter it here")
	tab.Accessible("the page for the key")
	shot(t, tab, "key")
	tab.Type("#key", "a wrong key, 0123456789")
	tab.Click("#key-form button")
	tab.AwaitText("This key is not right")
	tab.Accessible("the refusal")
	shot(t, tab, "refused")
	s.enter(tab, s.url, phoneKey)
	if cookie := browser.Eval[string](tab, "document.cookie + JSON.stringify(localStorage) + location.href"); strings.Contains(cookie, phoneKey) {
		t.Errorf("scripts see the key: %s", cookie)
	}
	tab.Go(s.url) // the key is kept
	tab.Await("the page", isKnown)
	tab.Click("#device summary")
	tab.Click("#forget")
	tab.AwaitText("enter it here")
}

// testOpen: open, count down, extend, close, for both families at once.
func (s *pageSite) testOpen(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	s.enter(tab, s.url, phoneKey)
	tab.AwaitText("127.0.0.1")
	tab.AwaitText("::1") // by the other name
	tab.Accessible("the closed page")
	shot(t, tab, "closed")
	tab.Click("#open")
	tab.Await("it to be open", isHere)
	tab.Await("the other address", "[...document.querySelectorAll('.rows .name')].some((e) => e.textContent.startsWith('::1'))")
	tab.Await("quiet", isIdle)
	tab.Accessible("the open page")
	shot(t, tab, "open")
	const left = "document.querySelector('[role=timer]').textContent"
	tab.Await("a countdown", "/^59:[0-9]{2}$/.test("+left+")")
	tab.Await("the countdown to go on", fmt.Sprintf("%s < %q", left, browser.Eval[string](tab, left)))
	tab.Scheme("dark")
	tab.Accessible("the open page in the dark")
	shot(t, tab, "open-dark")
	if paper := browser.Eval[string](tab, "getComputedStyle(document.body).backgroundColor"); paper != "rgb(18, 22, 20)" {
		t.Errorf("in the dark, the page is %s", paper)
	}
	tab.Scheme("light")
	// Nothing is wider than a narrow screen.
	tab.Resize(320, 640)
	if wide := browser.Eval[int](tab, "document.documentElement.scrollWidth"); wide > 320 {
		t.Errorf("the page is %d wide on a screen of 320", wide)
	}
	tab.Resize(phoneWidth, phoneHeight)
	if wide := browser.Eval[int](tab, "document.documentElement.scrollWidth"); wide > phoneWidth {
		t.Errorf("the page is %d wide on a screen of %d", wide, phoneWidth)
	}
	opened := browser.Eval[string](tab, "document.querySelector('.ring').dataset.expires")
	tab.Click("#extend")
	tab.Await("more time", fmt.Sprintf("document.querySelector('.ring').dataset.expires > %q", opened))
	tab.Await("quiet", isIdle)
	// By keyboard: the button has the focus, and what happened is said.
	browser.Eval[bool](tab, "document.getElementById('close').focus(), true")
	tab.Key("\r")
	tab.Await("it to be closed", "!"+isHere+" && document.getElementById('open')")
	tab.Await("what a screen reader says", "document.getElementById('live').textContent === 'Closed'")
	tab.Await("the focus on the button", "document.activeElement.id === 'open'")
	if text := tab.Text(); strings.Contains(text, "other addresses") {
		t.Errorf("something is still open:\n%s", text)
	}
}

// testExpiry: what is over is closed, without a reload.
func (s *pageSite) testExpiry(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	s.enter(tab, s.url, guestKey)
	tab.Click("#open")
	tab.Await("it to be open", isHere)
	tab.Await("it to be over", "!"+isHere+" && document.getElementById('open')")
	// The two families were opened one after the other.
	program.Await(t, "the grants to be over", func() bool { return s.grants(t, "brief") == 0 })
}

// grants counts the live grants of a client.
func (s *pageSite) grants(t *testing.T, client string) int {
	t.Helper()
	return strings.Count(s.command(t, "grants", "--client", client), client)
}

// command asks the running Caddy.
func (s *pageSite) command(t *testing.T, args ...string) string {
	t.Helper()
	return program.Run(t, program.Caddy(t), append([]string{"knock"}, append(args, "--address", s.admin)...)...)
}

// testOptions: a length is capped, and said to be; another address.
func (s *pageSite) testOptions(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	tab.Tolerate("status of 400")
	s.enter(tab, s.url, phoneKey)
	tab.Click("#options summary")
	tab.Do(chromedp.SetValue(chromedp.CSS("#ttl"), "14400"))
	tab.Accessible("the options")
	tab.Click("#open")
	tab.AwaitText("You asked for 4 h. More than this is not allowed: ssh for 1 h.")
	tab.Await("quiet", isIdle)
	tab.AwaitText("You asked for 4 h.") // also after the other family
	shot(t, tab, "capped")
	tab.Type("#address", "203.0.113.7")
	tab.Click("#extend")
	tab.AwaitText("203.0.113.7")
	tab.Await("quiet", isIdle)
	shot(t, tab, "other")
	tab.Click("[aria-label='Close for 203.0.113.7']")
	tab.Await("it to be closed", "!document.body.innerText.includes('203.0.113.7')")
	tab.Type("#address", "nonsense")
	tab.Click("#extend")
	tab.AwaitText("This is no address that can be opened.")
	tab.Await("quiet", isIdle)
	browser.Eval[bool](tab, "document.getElementById('address').value = '', true")
	tab.Click("#close")
	tab.Await("it to be closed", "!"+isHere)
}

// testAuto: with the box ticked, coming back opens, and it stays open.
func (s *pageSite) testAuto(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	s.enter(tab, s.url, guestKey)
	tab.Click("#options summary")
	tab.Click("#auto")
	tab.Go(s.url)
	tab.Await("it to be open", isHere)
	browser.Eval[bool](tab, "window.wasClosed = false, setInterval(() => { window.wasClosed ||= !"+isHere+" }, 20), true")
	opened := browser.Eval[string](tab, "document.querySelector('.ring').dataset.expires")
	tab.Await("it to be opened again before it ends", fmt.Sprintf("document.querySelector('.ring[data-expires]') && document.querySelector('.ring').dataset.expires > %q", opened))
	if browser.Eval[bool](tab, "window.wasClosed") {
		t.Error("it was closed for a moment")
	}
	if !browser.Eval[bool](tab, "performance.getEntriesByType('navigation').length === 1") {
		t.Error("the page was loaded again")
	}
}

// testInvitation: a device joins by a QR code, once, and is revoked.
func (s *pageSite) testInvitation(t *testing.T) {
	zbar := program.Need(t, "zbarimg")
	dir := t.TempDir()
	read := func(file string) string {
		return strings.TrimSpace(program.Run(t, zbar, "--quiet", "--raw", file))
	}
	png, svg := filepath.Join(dir, "i.png"), filepath.Join(dir, "i.svg")
	out := s.command(t, "invite", "family", "--png", png, "--svg", svg)
	link := regexp.MustCompile(`https://knock\.test:\d+/join#\S{24}`).FindString(out)
	if link == "" || read(png) != link {
		t.Fatalf("the link is %q, the picture says %q:\n%s", link, read(png), out)
	}
	_, token, _ := strings.Cut(link, "#")
	// The same code in the other forms, as a browser shows them.
	tab := s.Tab(t, 700, 700)
	text, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	lines, _, _ := strings.Cut(out, "https://")
	for name, html := range map[string]string{
		"svg":      string(text),
		"terminal": "<body style='background:#000;color:#fff'><pre style='font: 16px/16px DejaVu Sans Mono; letter-spacing: -.02px'>" + lines,
	} {
		tab.Go("data:text/html;base64," + base64.StdEncoding.EncodeToString([]byte("<meta charset=utf-8>"+html)))
		file := filepath.Join(dir, name+".png")
		if err := os.WriteFile(file, tab.Shot(), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(file); got != link {
			t.Errorf("as %s it says %q", name, got)
		}
	}

	tab = s.Tab(t, phoneWidth, phoneHeight)
	tab.Tolerate("status of 401")
	tab.Go(link)
	tab.AwaitText("You are invited")
	if browser.Eval[bool](tab, "location.href.includes('#') || document.getElementById('token').checkVisibility()") {
		t.Error("the token is in the address bar, or on the screen")
	}
	tab.Accessible("the invitation")
	shot(t, tab, "invitation")
	browser.Eval[bool](tab, "document.getElementById('name').value = 'Pixel <b>8</b>', true")
	tab.Click("#join button")
	tab.Await("it to be open by one tap", isHere)
	tab.AwaitText("Pixel <b>8</b>")
	shot(t, tab, "joined")
	list := s.command(t, "devices", "--client", "family")
	id := regexp.MustCompile(`(?m)^([0-9a-f]{16})  family  Pixel`).FindStringSubmatch(list)
	if id == nil || s.grants(t, "family") == 0 {
		t.Fatalf("the devices are\n%s", list)
	}

	// Once is enough, and late is too late.
	var late struct{ Link string }
	if err := json.Unmarshal([]byte(s.command(t, "invite", "family", "--for", "1ms", "--json")), &late); err != nil {
		t.Fatal(err)
	}
	again := s.Tab(t, phoneWidth, phoneHeight)
	again.Tolerate("status of 403")
	for what, link := range map[string]string{"used": link, "late": late.Link, "made up": strings.Replace(link, token, strings.Repeat("A", len(token)), 1)} {
		again.Go("about:blank")
		again.Go(link)
		again.AwaitText("You are invited")
		again.Click("#join button")
		again.AwaitText("This invitation was used already, is too old")
		if what == "used" {
			again.Accessible("the refused invitation")
		}
	}

	// The device is on disk, as a hash; and gone when it is revoked.
	book, err := os.ReadFile(filepath.Join(s.dir, "data", "caddy", "knock-devices.json"))
	if err != nil || !strings.Contains(string(book), `"sha256:`) {
		t.Errorf("the devices are kept as %s (%v)", book, err)
	}
	if out := s.command(t, "devices", "revoke", id[1]); !strings.Contains(out, "1 revoked") {
		t.Errorf("revoking: %s", out)
	}
	if n := s.grants(t, "family"); n != 0 {
		t.Errorf("there are %d grants of a device that was revoked", n)
	}
	tab.Click("#extend")
	tab.AwaitText("it has been revoked")
	tab.Go(s.url)
	tab.AwaitText("enter it here")
	if strings.Contains(s.caddy.Log.String(), token) {
		t.Error("the log has the token")
	}
}

// testOffline: without a network the page says so, also when it is started then, and
// goes on by itself.
func (s *pageSite) testOffline(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	tab.Tolerate("ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION_REFUSED", "FetchEvent")
	s.enter(tab, s.url, phoneKey)
	tab.Await("the service worker", "navigator.serviceWorker.controller")
	tab.Offline(true)
	tab.Click("#open")
	tab.AwaitText("You are offline.")
	tab.Accessible("the page without a network")
	shot(t, tab, "offline")
	tab.Offline(false)
	tab.Await("the network again", "document.getElementById('offline').hidden")
	// Started while the server can't be reached.
	s.caddy.Kill()
	tab.Go(s.url)
	tab.AwaitText("No connection")
	tab.Accessible("the page started without a network")
	s.start(t)
	tab.Click("button")
	tab.Await("the page", isKnown)
	// The worker keeps nothing about anybody.
	kept := browser.Eval[string](tab, `caches.keys().then((names) => Promise.all(names.map((n) => caches.open(n).then((c) => c.keys())))).then((l) => l.flat().map((r) => new URL(r.url).pathname).sort().join(" "))`)
	if kept != "/page/icon.svg /page/offline.html /page/offline.js /page/style.css" {
		t.Errorf("the worker keeps %s", kept)
	}
}

// testPlain: all of it without JavaScript.
func (s *pageSite) testPlain(t *testing.T) {
	var made struct{ Link string }
	if err := json.Unmarshal([]byte(s.command(t, "invite", "family", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	link, token, _ := strings.Cut(made.Link, "#")
	tab := s.Tab(t, phoneWidth, phoneHeight)
	tab.Script(false)
	tab.Go(link)
	tab.Type("#token", token)
	tab.Submit("#join button")
	tab.AwaitText("until")
	tab.AwaitText("UTC")
	shot(t, tab, "plain")
	tab.Submit("#extend")
	tab.AwaitText("UTC")
	tab.Submit("#close")
	tab.AwaitText("closed")
	if s.grants(t, "family") != 0 {
		t.Error("something is open")
	}
	tab.Click("#open")
	tab.AwaitText("UTC")
	tab.Click("#device summary")
	tab.Click("#forget")
	tab.AwaitText("enter it here")
	if list := s.command(t, "devices", "--client", "family"); strings.Contains(list, "family") {
		t.Errorf("the device is still there:\n%s", list)
	}
}

// testSubPath: the page below a path; its worker and cookie stay there.
func (s *pageSite) testSubPath(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	url := "https://sub.test:" + s.port + "/gate/"
	s.enter(tab, url, phoneKey)
	tab.Click("#open")
	tab.Await("it to be open", isHere)
	scope := browser.Eval[string](tab, "navigator.serviceWorker.ready.then((r) => new URL(r.scope).pathname)")
	if scope != "/gate/" {
		t.Errorf("the worker's scope is %s", scope)
	}
	start := browser.Eval[string](tab, "fetch(document.querySelector('link[rel=manifest]').href).then(async (r) => new URL((await r.json()).start_url, r.url).pathname)")
	if start != "/gate/" {
		t.Errorf("the installed page starts at %s", start)
	}
	tab.Click("#close")
	tab.Await("it to be closed", "!"+isHere)
}
