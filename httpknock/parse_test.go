// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"net/netip"
	"strings"
	"testing"
)

func TestForwardedAddr(t *testing.T) {
	proxies := netip.MustParsePrefix("10.9.0.0/24")
	for _, c := range []struct{ lines, want string }{
		{"203.0.113.7", "203.0.113.7"},
		{"1.1.1.1, 203.0.113.8", "203.0.113.8"},
		{"203.0.113.10, 10.9.0.3", "203.0.113.10"},
		{"203.0.113.10,10.9.0.3 ,\t10.9.0.4", "203.0.113.10"},
		{"10.9.0.4, 10.9.0.3", ""},
		{"", ""},
		{" ", ""},
		{"203.0.113.7,", ""},
		{",203.0.113.7", ""},
		{"garbage, 203.0.113.11", ""},
		{"unknown", ""},
		{"203.0.113.12:4711", ""},
		{"[2001:db8::1]", ""},
		{"203.0.113.0/24", ""},
		{"203.0.113.007", ""},
		{"2001:DB8:0::7", "2001:db8::7"},
		{"::ffff:203.0.113.9", "203.0.113.9"},
		{"203.0.113.9, ::ffff:10.9.0.3", "203.0.113.9"},
		{"fe80::1%eth0", "fe80::1"},
		// Several lines are one: the last is what the nearest proxy added.
		{"203.0.113.1\n203.0.113.2", "203.0.113.2"},
		{"203.0.113.1\n10.9.0.3", "203.0.113.1"},
		{"garbage\n203.0.113.2", ""},
		{"203.0.113.2\n", ""},
		{"1.1.1.1" + strings.Repeat(",1.1.1.1", 19), "1.1.1.1"},
		{"1.1.1.1" + strings.Repeat(",1.1.1.1", 20), ""},
	} {
		got := forwardedAddr(strings.Split(c.lines, "\n"), proxies.Contains)
		if want, _ := netip.ParseAddr(c.want); got != want {
			t.Errorf("%q: %v instead of %q", c.lines, got, c.want)
		}
	}
	if forwardedAddr(nil, proxies.Contains).IsValid() {
		t.Error("no header names somebody")
	}
}

func TestParseNetwork(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"8.8.8.8", "8.8.8.8/32"},
		{"198.51.100.9/32", "198.51.100.9/32"},
		{"10.1.2.3/24", "10.1.2.0/24"},
		{"10.1.2.3/255.255.255.0", "10.1.2.0/24"},
		{"10.1.2.3/0.0.0.255", "10.1.2.0/24"},
		{"10.1.2.3/255.255.255.255", "10.1.2.3/32"},
		{"10.1.2.3/0.0.0.0", "0.0.0.0/0"},
		{"10.1.2.3/255.0.255.0", ""},
		{"10.1.2.3/0.255.0.255", ""},
		{"10.1.2.3/33", ""},
		{"10.1.2.3/-1", ""},
		{"10.1.2.3/+8", ""},
		{"10.1.2.3/", ""},
		{"10.1.2.3/24/24", ""},
		{"10.1", ""},
		{"167772161", ""},
		{"0x0a000001", ""},
		{"010.1.2.3", ""},
		{" 10.1.2.3", ""},
		{"10.1.2.3 ", ""},
		{"", ""},
		{"/24", ""},
		{"10.1.2.3:22", ""},
		{"[::1]", ""},
		{"example.com", ""},
		{"2001:DB8:0:0:0:0:0:B", "2001:db8::b/128"},
		{"2001:db8:1::5/64", "2001:db8:1::/64"},
		{"2001:db8::/ffff:ffff::", ""},
		{"::ffff:203.0.113.9", "203.0.113.9/32"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8"},
		{"::ffff:0:0/64", ""},
		{"fe80::1%eth0", ""},
		{"fe80::1%eth0/64", ""},
		{"fe80::/64%eth0", ""},
	} {
		got, err := parseNetwork(c.text)
		if (err == nil) != (c.want != "") || err == nil && got != netip.MustParsePrefix(c.want) {
			t.Errorf("%q: %v, %v instead of %q", c.text, got, err, c.want)
		}
	}
	for text, wide := range map[string]bool{"0.0.0.0/0": true, "10.0.0.0/15": true, "10.0.0.0/16": false, "::/0": true, "2001:db8::/63": true, "2001:db8::/64": false} {
		if tooWide(netip.MustParsePrefix(text)) != wide {
			t.Errorf("%s: too wide is %v", text, !wide)
		}
	}
}

func TestParseOrder(t *testing.T) {
	long := strings.Repeat("1", 101)
	for body, want := range map[string]*failure{
		`{}`: nil, `{"ttl":1}`: nil, `{"ttl":null,"ip_address":null}`: nil, "\ufeff{}": nil, " \t\r\n{} ": nil,
		`{"ttl":"x","ttl":5}`: nil, `{"ip_address":"::1","ttl":10000000000000000000000000}`: nil,
		``: failMalformed, ` `: failMalformed, `{`: failMalformed, `{}{}`: failMalformed, `{"ttl":01}`: failMalformed, "{\"ip_address\":\"\xff\"}": failMalformed,
		"\xff\xfe{\x00}\x00": failMalformed, `{"ttl":Nan}`: failMalformed, `{'ttl':1}`: failMalformed, "{\"ip_address\":\"a\nb\"}": failMalformed,
		`[]`: failNotObject, `null`: failNotObject, `"x"`: failNotObject, `1`: failNotObject, `NaN`: failNotObject,
		`{"ttl":0}`: failTTL, `{"ttl":-0}`: failTTL, `{"ttl":-1}`: failTTL, `{"ttl":1.0}`: failTTL, `{"ttl":1e3}`: failTTL, `{"ttl":"1"}`: failTTL,
		`{"ttl":true}`: failTTL, `{"ttl":[]}`: failTTL, `{"ttl":{}}`: failTTL, `{"ttl":NaN}`: failTTL, `{"ttl":-Infinity}`: failTTL,
		`{"ttl":0,"ip_address":5,"x":1}`: failTTL,
		`{"ip_address":5}`:               failAddress, `{"ip_address":""}`: failAddress, `{"ip_address":["::1"]}`: failAddress, `{"ip_address":NaN}`: failAddress,
		`{"ip_address":"` + long + `"}`: failAddressLength, `{"ip_address":"` + long[:100] + `"}`: failAddress,
		`{"ip_address":"NaN","x":1}`: failAddress,
		`{"TTL":5}`:                  failUnknownMember, `{"x":NaN}`: failUnknownMember, `{"ttl":5,"x":"\"NaN"}`: failUnknownMember,
	} {
		if _, f := parseOrder([]byte(body)); f != want {
			t.Errorf("%q: %+v instead of %+v", body, f, want)
		}
	}
	if o, f := parseOrder([]byte(`{"ttl":300,"ip_address":"10.1.2.3/24"}`)); f != nil || o.ttl != 300 || o.address != "10.1.2.3/24" || o.network.String() != "10.1.2.0/24" {
		t.Errorf("%+v, %v", o, f)
	}
}

func TestPlainPath(t *testing.T) {
	for path, plain := range map[string]bool{
		"/": true, "/public": true, "/public/a.b/..c": true, "/public/%20": true, "/public;v=1": true,
		"/public/../admin": false, "/public/./x": false, "/public//x": false, `/public\..\x`: false, "/public/%2e%2e/x": false,
		"/public/%2E/x": false, "/public%2fx": false, "/public/%5cx": false, "/public/%252e": false, "/public/..;/x": false, "/public/..;a=b": false,
		"/public/%00": false, "/public/ x": false, "/public/\x7f": false, "/public/..": false, "/public/..%3bx/": false,
	} {
		if plainPath(path) != plain {
			t.Errorf("%q: %v", path, !plain)
		}
	}
	for host, want := range map[string]string{"Media.Example": "media.example", "a.example:8443": "a.example", "a.example, b.example": "a.example", "[::1]:80": "::1", "": ""} {
		if got := forwardedHost([]string{host}); got != want {
			t.Errorf("%q: %q", host, got)
		}
	}
	if forwardedHost([]string{"a", "b"}) != "" {
		t.Error("two lines name one host")
	}
}

// FuzzOrder: no body panics, and what is accepted is what it seems.
func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"ttl":300,"ip_address":"10.1.2.3/24"}`))
	f.Add([]byte(`{"ttl":NaN}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		o, fail := parseOrder(body)
		if fail != nil {
			return
		}
		if o.ttl < 0 || o.ttl > maxTTL+1 {
			t.Errorf("ttl %d", o.ttl)
		}
		if o.address != "" && (!o.network.IsValid() || o.network != o.network.Masked() || o.network.Addr().Is4In6() || o.network.Addr().Zone() != "") {
			t.Errorf("%q became %v", o.address, o.network)
		}
	})
}

// FuzzForwarded: the address found is always the last one that is not a proxy's.
func FuzzForwarded(f *testing.F) {
	f.Add("203.0.113.1, 10.9.0.3", "2001:db8::1")
	f.Fuzz(func(t *testing.T, first, second string) {
		lines := []string{first, second}
		got := forwardedAddr(lines, netip.MustParsePrefix("10.9.0.0/24").Contains)
		if !got.IsValid() {
			return
		}
		var want netip.Addr
		for _, element := range strings.Split(strings.Join(lines, ","), ",") {
			addr, err := netip.ParseAddr(strings.Trim(element, " \t"))
			if err != nil {
				t.Fatalf("%q: %v was found", lines, got)
			}
			if addr = addr.Unmap().WithZone(""); !netip.MustParsePrefix("10.9.0.0/24").Contains(addr) {
				want = addr
			}
		}
		if got != want {
			t.Errorf("%q: %v instead of %v", lines, got, want)
		}
	})
}
