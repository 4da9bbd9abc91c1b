// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// parseMessage reads "ip,command" or "ip,proto/port[,proto/port…]" (fwknop-spa.md
// section 2.1).
func (f *Fwknop) parseMessage(message string) error {
	ip, rest, found := strings.Cut(message, ",")
	if !found || rest == "" {
		return fwknopMalformed("the message asks for nothing")
	}
	addr, err := netip.ParseAddr(ip) // takes no leading zeros
	if err != nil {
		return fwknopMalformed("the message does not begin with an IPv4 address (without leading zeros)")
	}
	if !addr.Is4() {
		return fwknopRefuse(knockcore.ReasonUnsupported, "the message has an IPv6 address, which fwknop does not know")
	}
	f.Allow = addr
	if f.Type == FwknopCommand {
		f.Command = rest
		return nil
	}
	for item := range strings.SplitSeq(rest, ",") {
		proto, number, _ := strings.Cut(item, "/")
		var protocol knockcore.Protocol
		switch proto {
		case "tcp":
			protocol = knockcore.TCP
		case "udp":
			protocol = knockcore.UDP
		default:
			return fwknopRefuse(knockcore.ReasonUnsupported, "the message asks for a protocol other than tcp and udp")
		}
		port, ok := parseFwknopPort(number)
		if !ok {
			return fwknopMalformed("the message has a port that is not a number from 1 to 65535")
		}
		f.Ports = append(f.Ports, knockcore.PortRange{Protocol: protocol, Low: port, High: port})
	}
	return nil
}

// encodeMessage writes what parseMessage reads.
func (f *Fwknop) encodeMessage() (string, error) {
	if !f.Allow.Is4() {
		return "", errors.New("the address is not IPv4, and fwknop knows no other; 0.0.0.0 stands for the datagram's source")
	}
	if f.Type == FwknopCommand {
		if len(f.Ports) > 0 {
			return "", errors.New("a command message has no ports")
		}
		return f.Allow.String() + "," + f.Command, nil
	}
	if f.Command != "" {
		return "", errors.New("only a message of type 0 has a command")
	}
	if len(f.Ports) == 0 {
		return "", errors.New("no port is asked for")
	}
	var b strings.Builder
	b.WriteString(f.Allow.String())
	for _, p := range f.Ports {
		if p.Low != p.High {
			return "", errors.New("fwknop asks for single ports, not ranges")
		}
		b.WriteByte(',')
		b.WriteString(p.String())
	}
	return b.String(), nil
}

// validFwknopUser reports whether a user name has 1 to 48 bytes, all printable
// ASCII without the characters that fwknop forbids (section 2).
func validFwknopUser(user string) bool {
	return user != "" && !strings.ContainsFunc(user, func(r rune) bool {
		return r < 0x20 || r > 0x7e || strings.ContainsRune(`"/\[]:;|=,+*?<>`, r)
	})
}

// validFwknopNAT reports whether a NAT target is "host,port" (section 2.1).
func validFwknopNAT(nat string) bool {
	host, number, _ := strings.Cut(nat, ",")
	if host == "" || len(host) > fwknopMaxNATHost {
		return false
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= 0x20 || r > 0x7e || strings.ContainsRune(`/?"'\`, r) }) {
		return false
	}
	_, ok := parseFwknopPort(number)
	return ok
}

// parseFwknopPort reads a port from 1 to 65535 without sign or leading zeros.
func parseFwknopPort(s string) (uint16, bool) {
	if s == "" || s[0] == '0' {
		return 0, false
	}
	n, ok := parseDecimal(s, 5)
	return uint16(n), ok && n <= 65535
}

// parseDecimal reads 1 to maxLen decimal digits, nothing else; maxLen is at most
// 18.
func parseDecimal(s string, maxLen int) (int64, bool) {
	if s == "" || len(s) > maxLen || !isDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// isDigits reports whether s consists of decimal digits.
func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
