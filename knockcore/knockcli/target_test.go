// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	tests := []struct {
		args string
		want target
		err  string
	}{
		{"h", target{"", "h", ""}, ""},
		{"h:22", target{"", "h", "22"}, ""},
		{"h 22", target{"", "h", "22"}, ""},
		{"h ssh", target{"", "h", "ssh"}, ""},
		{"alice@h", target{"alice", "h", ""}, ""},
		{"alice@h:22", target{"alice", "h", "22"}, ""},
		{"alice@h 22", target{"alice", "h", "22"}, ""},
		{"a@b@h:22", target{"a@b", "h", "22"}, ""},
		{"alice@192.0.2.1", target{"alice", "192.0.2.1", ""}, ""},
		{"192.0.2.1:22", target{"", "192.0.2.1", "22"}, ""},
		{"[2001:db8::1]:22", target{"", "2001:db8::1", "22"}, ""},
		{"alice@[2001:db8::1]", target{"alice", "2001:db8::1", ""}, ""},
		{"alice@2001:db8::1 22", target{"alice", "2001:db8::1", "22"}, ""},
		{"alice@[2001:db8::1] 22", target{"alice", "2001:db8::1", "22"}, ""},
		{"fe80::1%eth0 22", target{"", "fe80::1%eth0", "22"}, ""},
		{"alice@2001:db8::1", target{}, "write [2001:db8::1]:PORT"},
		{"alice@2001:db8:0:0:0:0:0:1:22", target{}, "is not HOST:PORT"},
		{"@h", target{}, "no client"},
		{"alice@", target{}, "names no host"},
		{"alice@:22", target{}, "names no host"},
		{":22", target{}, "names no host"},
		{"h:22 22", target{}, "two ports"},
		{"h:0", target{}, "not a port"},
		{"h:65536", target{}, "not a port"},
		{"h:-1", target{}, "not a port"},
		{"h nosuchservice", target{}, "not a port"},
		{"h:", target{"", "h", ""}, ""},
		{"a\tb@h", target{}, "blanks"},
	}
	for _, test := range tests {
		got, err := parseTarget(strings.Split(test.args, " "))
		if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: got %+v, %v; want %+v, %q", test.args, got, err, test.want, test.err)
		}
		if f := asFailure(err); err != nil && f.code != ExitUsage {
			t.Errorf("%q: got exit code %d, want that of wrong usage", test.args, f.code)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"alice@h:22", "[2001:db8::1]:22", "a@b@c", "@", ":", "[]:1", "h%1:1"} {
		f.Add(seed, "")
		f.Add(seed, "22")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		args := []string{first}
		if second != "" {
			args = append(args, second)
		}
		got, err := parseTarget(args)
		if err != nil {
			return
		}
		if got.host == "" || strings.ContainsAny(got.host, " \n\x00") {
			t.Errorf("%q: got host %q", args, got.host)
		}
		if got.user != "" && !strings.HasPrefix(first, got.user+"@") || !strings.Contains(first, got.host) {
			t.Errorf("%q: got %+v, which is not in there", args, got)
		}
	})
}
