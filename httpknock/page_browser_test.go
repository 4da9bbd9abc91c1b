// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/browser"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// phone is the size of a small phone's screen.
const phoneWidth, phoneHeight = 360, 740

// pageSite is a Caddy with a page, and a browser.
type pageSite struct {
	caddy *program.Process
	*browser.Browser
	admin, port string
	url         string // of the page
}

const pageCaddyfile = `{
	admin %s
	skip_install_trust
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
	s := &pageSite{admin: program.FreeAddress(t), port: fmt.Sprint(program.FreePort(t))}
	s.caddy = program.StartCaddy(t, t.TempDir(), fmt.Sprintf(pageCaddyfile, s.admin, program.FreePort(t), s.port), net.JoinHostPort("127.0.0.1", s.port))
	s.Browser = browser.Start(t, "MAP knock.test 127.0.0.1, MAP sub.test 127.0.0.1, MAP v6.knock.test [::1]")
	s.url = "https://knock.test:" + s.port + "/"
	return s
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
	t.Run("knock", s.testKnock)
}

// enter enters a key.
func (s *pageSite) enter(tab *browser.Tab, url, key string) {
	tab.Go(url)
	tab.AwaitText("enter it here")
	tab.Type("#key", key)
	tab.Click("#key-form button")
	tab.Await("the page", "document.querySelector('main[data-known]')")
}

func (s *pageSite) testKnock(t *testing.T) {
	tab := s.Tab(t, phoneWidth, phoneHeight)
	tab.Go(s.url)
	tab.AwaitText("enter it here")
	shot(t, tab, "enter")
	s.enter(tab, s.url, phoneKey)
	tab.AwaitText("127.0.0.1")
	shot(t, tab, "closed")
	tab.Click("#open")
	tab.Await("it to be open", "document.querySelector('main[data-here]')")
	shot(t, tab, "open")
	tab.Scheme("dark")
	shot(t, tab, "dark")
}
