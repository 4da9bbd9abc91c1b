// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caddyserver/caddy/v2"
)

// TestReadQuickly: the usual is read, and the unusual is left to encoding/json.
func TestReadQuickly(t *testing.T) {
	for _, test := range []struct {
		file string
		ok   bool
	}{
		{`{"clients":[{"id":"alice","secrets":["base64:AAEC/+=="]},{"id":"bob","services":["ssh"]},{"id":"","services":["ssh"]}]}`, true},
		{" {\n\t\"clients\" : [ { \"id\" : \"a\" ,\r\n\"services\" : [ ] } , {\"id\":\"b\",\"services\":[ ]} ]\n}\n", true},
		{`{"clients":[]}`, true},
		{`{"clients":[{"id":"\u00e9\"\\","secrets":["é } ,{"," ]"]}]}`, true},
		{`{"clients":[{"id":"a","ttl":"1h","max_ttl":3600000000000,"max_grants":0}]}`, true},
		{`{"clients":[{"id":"a","services":["ssh"]},{"id":"b","services":["ssh"]},{"id":"c","services":["ssh","www"]},{"id":"d","services":["ssh"]}]}`, true},
		{"{\"clients\":[{\"id\":\"\xff\"}]}", true},
		{`{"clients":[{}]}`, false},
		{`{"clients":[null]}`, false},
		{`{"clients":null}`, false},
		{`{"clients":[{"id":null}]}`, false},
		{`{"clients":[{"secrets":[null]}]}`, false},
		{`{"Clients":[]}`, false},
		{`{"clients":[{"ID":"a"}]}`, false},
		{`{"clients":[{"id":"a","id":"b"}]}`, false},
		{`{"clients":[{"services":["ssh"],"services":["www"]}]}`, false},
		{`{"clients":[{"services":["ssh"]},{"services":["www"],"services":["ssh"]}]}`, false},
		{`{"clients":[{"fwknop":[{"hmac":"x"}],"fwknop":[{"encryption":"x"}]}]}`, false},
		{`{"clients":[{"allow_remote":{"ipv4":1},"allow_remote":{"ipv6":1}}]}`, false},
		{`{"clients":[],"clients":[]}`, true},
		{`{"clients":[{"id":"a"}],"clients":[]}`, false},
		{`{"clients":[{"services":["ssh"]}]}`, true},
		{`{"clients":[{"name":"x"}]}`, false},
		{`{"clients":[{"id":"a"},]}`, false},
		{`{"clients":[{"id":"a",}]}`, false},
		{`{"clients":[{"id":"a"} {"id":"b"}]}`, false},
		{`{"clients":[{"id":"a"},,{"id":"b"}]}`, false},
		{`{"clients":[{"id":"a" "secrets":[]}]}`, false},
		{`{"clients":[{"id" "a"}]}`, false},
		{`{"clients":[{"secrets":["a","b",]}]}`, false},
		{`{"clients":[{"id":"\x"}]}`, false},
		{"{\"clients\":[{\"id\":\"\n\"}]}", false},
		{`{"clients":[{"id":1}]}`, false},
		{`{"clients":[{"max_grants":01}]}`, false},
		{`{"clients":[{"max_grants":-1}]}`, false},
		{`{"clients":[{"max_grants":1e3}]}`, false},
		{`{"clients":[{"max_grants":99999999999999999999}]}`, false},
		{`{"clients":[{"ttl":"soon"}]}`, false},
		{`{"clients":[{"ttl":1.5}]}`, false},
		{`{"clients":[{"ttl":}]}`, false},
		{`{"clients":[{"all_services":truetrue}]}`, false},
		{`{"clients":[{"all_services":yes}]}`, false},
		{`{"clients":[]}{}`, false},
		{`{"clients":[]`, false},
		{`{"clients":[{"id":"a`, false},
		{`{"clients":[{"id":"a\`, false},
		{`{"clients":[{"id":"a"}`, false},
		{`{"clients":{}}`, false},
		{`[]`, false},
		{``, false},
	} {
		if got, ok := checkQuickly(t, []byte(test.file)); ok != test.ok {
			t.Errorf("%s: %v, %+v", test.file, ok, got)
		}
	}
}

// TestReadQuicklyAll: no field of clients makes files be read slowly.
func TestReadQuicklyAll(t *testing.T) {
	full := Client{
		ID: "alice", Secrets: []string{"s", "t"}, Services: []string{"ssh"}, AllServices: true, TTL: 1, MaxTTL: caddy.Duration(1e18), Expires: "2027-01-01",
		From: []string{"::/0"}, Methods: []string{"tcp-v2"}, Pyknock: []string{"p"}, Fwknop: []*FwknopKeys{{"a", "b", "md5"}, {"c", "d", "sha1"}},
		APIKeys: []string{"k"}, APIKeyHashes: []string{"h"}, AllowRemote: &AllowRemote{24, 64}, MaxGrants: 7, AllowWeak: true, At: "Caddyfile:1",
	}
	for _, v := range []any{full, *full.Fwknop[0], *full.AllowRemote} {
		for name, field := range reflect.ValueOf(v).Fields() {
			if field.IsZero() {
				t.Errorf("this test needs a value for %T.%s", v, name.Name)
			}
		}
	}
	one, few := full, full
	one.AllServices, one.AllowWeak, few.Services, few.Methods = false, false, []string{"ssh", "www"}, nil
	file, err := json.MarshalIndent(ClientsFile{[]*Client{&full, &one, &few}}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := checkQuickly(t, file); !ok {
		t.Errorf("it was not read:\n%s", file)
	}
}

// checkQuickly compares what was read quickly, if it was.
func checkQuickly(t *testing.T, file []byte) (content *ClientsFile, ok bool) {
	t.Helper()
	content = &ClientsFile{[]*Client{}}
	// Bytes come one at a time, as no file would have them.
	if !readQuickly(iotest.OneByteReader(bytes.NewReader(file)), func(c *Client) bool {
		content.Clients = append(content.Clients, new(*c))
		return true
	}) {
		return nil, false
	}
	var want ClientsFile
	if err := caddy.StrictUnmarshalJSON(file, &want); err != nil || !reflect.DeepEqual(*content, want) {
		t.Errorf("%s: got %+v, want %+v, %v", file, *content, want, err)
	}
	return content, true
}

// TestReadQuicklyLong reads files that are longer than what is in memory at a time.
func TestReadQuicklyLong(t *testing.T) {
	file := func(long int) []byte {
		var clients []string
		for i := range 500 {
			services := strings.Repeat(`"web",`, i)
			if i == 250 {
				services = strings.Repeat(`"web",`, long/len(`"web",`))
			}
			clients = append(clients, fmt.Sprintf(`{"id":"c%d","secrets":["the secret of client %d"],"services":[%s"ssh"]}`, i, i, services))
		}
		return []byte(`{"clients":[` + strings.Join(clients, ",\n") + `]}`)
	}
	for _, long := range []int{0, quickClient * 9 / 10, quickWindow, 2 * quickWindow} {
		b := file(long)
		if _, ok := checkQuickly(t, b); ok == (long >= quickWindow) {
			t.Errorf("with a client of %d bytes: %v", long, ok)
		}
		// Clients that were read before the long one are not there twice.
		path := filepath.Join(t.TempDir(), "clients.json")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		a := &App{Services: []*Service{{Name: "ssh"}, {Name: "web"}}}
		clients, err := a.readClients(bytes.NewReader(b), path, int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range clients {
			if c.ID != fmt.Sprint("c", i) || string(c.Secrets[0].Bytes()) != fmt.Sprintf("the secret of client %d", i) || !c.MayReach("ssh") || len(clients) != 500 {
				t.Fatalf("%d clients; %d is %+v", len(clients), i, c)
			}
		}
	}
}

// TestDecodeClientsErrors: what is wrong is said in the words of the file, with its line.
func TestDecodeClientsErrors(t *testing.T) {
	for file, want := range map[string]string{
		"{\"clients\": [\n{\"id\": \"a\",\n\"secret\": \"x\"},\n{}]}":  `f:3: unknown field "secret"; did you mean "secrets"?`,
		"{\"clients\": [\n{\"colour\": \"red\"}\n]}":                   `f:2: unknown field "colour"; expect id, secrets, services, `,
		"{\"clients\": [\n{\"id\": \"a\",\n\"secrets\": \"x\"},\n{}]}": `f:3: secrets must be a list, such as ["base64:…"], not a string`,
		"{\"clients\": [\n{\"services\": {\"ssh\": true}}\n]}":         `f:2: services must be a list, such as ["..."], not an object`,
		"{\"clients\": {\n\"alice\": {}}}":                             `f:1: clients must be a list, such as [{...}], not an object`,
		`[{"id": "alice"}]`:                                            `f:1: the file must hold an object, {"clients": [...]}, not a list`,
		`"alice"`:                                                      `f:1: the file must hold an object, {"clients": [...]}, not a string`,
		`{"clients": ["alice"]}`:                                       `f:1: each of clients must be an object {...}, not a string`,
		`{"clients": [{"secrets": [7]}]}`:                              `f:1: each of secrets must be a string such as "...", not a number`,
		`{"clients": [{"id": 7}]}`:                                     `f:1: id must be a string such as "...", not a number`,
		`{"clients": [{"allow_weak": "yes"}]}`:                         `f:1: allow_weak must be true or false, not a string`,
		`{"clients": [{"max_grants": 1.5}]}`:                           `f:1: max_grants must be a whole number`,
		`{"clients": [{"allow_remote": {"ipv4": "24"}}]}`:              `f:1: ipv4 must be a whole number, not a string`,
		`{"clients": [{"id": "a", "secrets": ["base64:AAEC"]}]} {}`:    "something after the end",
	} {
		if _, err := decodeClients([]byte(file), "f"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", file, err, want)
		}
	}
}

func FuzzReadQuickly(f *testing.F) {
	f.Add([]byte(`{"clients":[{"id":"é\u00e9","secrets":["base64:AAEC/+=="],"services":["ssh"],"all_services":true,"ttl":"1h","max_ttl":5,"from":["::/0"],"allow_weak":false}]}`))
	f.Add([]byte(`{"clients" : [ {"methods":["tcp-v2"],"fwknop":[{"encryption":"a","hmac":"b"}],"allow_remote":{"ipv4":24},"max_grants":7}, {"methods":["tcp-v2"]} ] } `))
	f.Fuzz(func(t *testing.T, file []byte) { checkQuickly(t, file) })
}

// BenchmarkReadQuickly reads 10,000 clients.
func BenchmarkReadQuickly(b *testing.B) {
	clients := make([]string, 10_000)
	for i := range clients {
		secret := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "the secret of client %010d", i))
		clients[i] = fmt.Sprintf(`{"id":"c%d","secrets":["base64:%s"],"services":["ssh"]}`, i, secret)
	}
	file := []byte(`{"clients":[` + strings.Join(clients, ",") + `]}`)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if !readQuickly(bytes.NewReader(file), func(*Client) bool { return true }) {
			b.Fatal("not read")
		}
	}
}
