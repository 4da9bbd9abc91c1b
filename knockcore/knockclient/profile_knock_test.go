// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

const topSecret = `"client":"alice","secret":"hex:000102030405060708090a0b0c0d0e0f"`

func TestProfileKnock(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "psk"), []byte("key of é\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	profiles := knockclient.Profiles{Dir: dir}
	tests := map[string]struct {
		text  string
		check func(o *knockclient.Opening) bool
		err   string
	}{
		"empty": {`{` + topSecret + `,"knock":{}}`, func(o *knockclient.Opening) bool { return !o.NoFrame && !o.NoSession && o.Knock.Secret.Len() == 16 }, ""},
		"no session": {`{` + topSecret + `,"knock":{"method":"udp-seq","session":false,"port":1,"host":"h","parts":4,"interval":"1ms"}}`, func(o *knockclient.Opening) bool {
			return o.NoSession && o.Port == 1 && o.Host == "h" && o.Knock.Parts == 4 && o.Knock.Interval == time.Millisecond
		}, ""},
		"no frame": {`{` + topSecret + `,"knock":{"frame":false}}`, func(o *knockclient.Opening) bool { return o.NoFrame }, ""},
		"pyknock": {`{"client":"alice","knock":{"method":"pyknock","secret_file":"psk","address":"203.0.113.7"}}`, func(o *knockclient.Opening) bool {
			return o.NoFrame && o.Knock.Secret.Equal(knockcore.NewSecret([]byte("key of \xe9"))) && o.Knock.Address == netip.MustParseAddr("203.0.113.7")
		}, ""},
		"fwknop": {`{` + topSecret + `,"knock":{"method":"fwknop","secret":"e","hmac_secret":"h","ports":["tcp/22"]}}`, func(o *knockclient.Opening) bool {
			return !o.NoFrame && o.Knock.Fwknop.HMAC.Len() == 1 && o.Knock.Secret.IsZero()
		}, ""},

		"no secret":   {`{"client":"alice","knock":{}}`, nil, "0 bytes"},
		"no HMAC":     {`{"client":"alice","knock":{"method":"fwknop","secret":"e"}}`, nil, "HMAC"},
		"both":        {`{"client":"alice","knock":{"method":"pyknock","secret":"e","secret_file":"psk"}}`, nil, "keep one"},
		"no file":     {`{"client":"alice","knock":{"method":"pyknock","secret_file":"nothing"}}`, nil, "does not exist"},
		"frame":       {`{` + topSecret + `,"knock":{"method":"tcp-auth-frame-v1"}}`, nil, "no method of knocking"},
		"ports":       {`{` + topSecret + `,"knock":{"ports":["icmp/1"]}}`, nil, "unknown protocol"},
		"unknown key": {`{` + topSecret + `,"knock":{"colour":"red"}}`, nil, "unknown field"},
		"frame needs": {`{"client":"alice","knock":{"method":"pyknock","secret":"e","frame":true}}`, nil, "0 bytes"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(profiles.Path("p"), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p, err := profiles.Load("p")
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("Got %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if o := p.Opening(); !test.check(o) {
				t.Errorf("Got %+v", o)
			}
			shown, err := json.Marshal(p)
			if err != nil || strings.Contains(string(shown), "base64:") {
				t.Errorf("Shown as %s, %v", shown, err)
			}
			if err := profiles.Save("copy", p, true); err != nil {
				t.Fatal(err)
			}
			same, err := profiles.Load("copy")
			if err != nil {
				t.Fatal(err)
			}
			a, _ := p.Text()
			b, _ := same.Text()
			if !reflect.DeepEqual(a, b) {
				t.Errorf("Saved and read again it is %s, was %s", b, a)
			}
		})
	}
}
