// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestAddressAuto signs the address that the profile's knock page sees, which need
// not be the one that the knock comes from.
func TestAddressAuto(t *testing.T) {
	profiles := ownProfiles(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-Api-Key") != "":
			t.Error("the key was sent, where none is needed")
		case r.URL.Path == "/gate/page/address":
			_, _ = io.WriteString(w, `{"address":"203.0.113.7"}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer page.Close()
	r := listenUDP(t, "127.0.0.1:0")
	key := knockcore.NewSecret([]byte("a key of sixteen bytes or more"))
	psk := knockcore.NewSecret([]byte("psk"))
	save := func(name, url string) {
		p := knockclient.Profile{Server: "127.0.0.1", Knock: &knockclient.ProfileKnock{Method: knockcore.MethodPyknock, Secret: psk, Port: r.port, NoFrame: true}}
		if url != "" {
			p.HTTP = &knockclient.ProfileHTTP{URL: url, Key: key}
		}
		saveProfile(t, profiles, name, p)
	}
	save("alice", page.URL+"/gate")
	save("elsewhere", page.URL)
	save("bob", "")
	runIn(t, "", "send", "--address", "auto", "--profile", "alice", "127.0.0.1").want(t, 0)
	knock, err := wire.OpenPyknock(time.Now(), time.Hour, psk, r.next(t))
	if err != nil || knock.Addr != netip.MustParseAddr("203.0.113.7") {
		t.Errorf("%+v, %v", knock, err)
	}
	runIn(t, "", "send", "--address", "auto", "--profile", "elsewhere", "127.0.0.1").want(t, 1, "answered 404")
	runIn(t, "", "send", "--address", "auto", "--profile", "bob", "127.0.0.1").want(t, knockcli.ExitUsage, "the profile, and it has none")
	runIn(t, "", "send", "--address", "nonsense", "--profile", "bob", "127.0.0.1").want(t, knockcli.ExitUsage, "nor source or auto")
}
