// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"net"
	"net/netip"
	"strings"
)

// target is where to connect to, and as whom: the parts that the command line
// gave.
type target struct{ user, host, port string }

// targetUsage is how usage lines write it.
const targetUsage = "[CLIENT@]HOST[:PORT]"

// parseTarget reads CLIENT@HOST:PORT, of which CLIENT and PORT may be missing, or
// CLIENT@HOST and PORT as two arguments, which ssh can fill in for IPv6 too.
func parseTarget(args []string) (t target, err error) {
	rest := args[0]
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		t.user, rest = rest[:i], rest[i+1:]
		if t.user == "" {
			return t, usagef("no client stands before the @ of %q", args[0])
		}
	}
	if strings.ContainsFunc(args[0], func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return t, usagef("%q has blanks or control characters in it", args[0])
	}
	_, addrErr := netip.ParseAddr(rest)
	switch {
	case addrErr == nil && (len(args) == 2 || !strings.Contains(rest, ":")):
		t.host = rest
	case addrErr == nil:
		return t, usagef("address and port of %q can't be told apart; write [%s]:PORT, or the port by itself", args[0], rest)
	case strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]"):
		t.host = rest[1 : len(rest)-1]
	case strings.Contains(rest, ":"):
		if t.host, t.port, err = net.SplitHostPort(rest); err != nil {
			return t, usagef("%q is not HOST:PORT: %w", rest, err)
		}
	default:
		t.host = rest
	}
	if t.host == "" {
		return t, usagef("%q names no host", args[0])
	}
	if len(args) == 2 {
		if t.port != "" {
			return t, usagef("there are two ports: %s and %s", t.port, args[1])
		}
		t.port = args[1]
	}
	if t.port != "" {
		if _, err := parsePort(t.port); err != nil {
			return t, err
		}
	}
	return t, nil
}

// parsePort reads a port's number, or the name of a service.
func parsePort(text string) (uint16, error) {
	port, err := net.LookupPort("tcp", text)
	if err != nil || port == 0 {
		return 0, usagef("%q is not a port; expect a number from 1 to 65535, or the name of a service", text)
	}
	return uint16(port), nil
}
