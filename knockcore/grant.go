// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// Scope says how far a grant reaches.
type Scope uint8

// The scopes.
const (
	// ScopeConnection is a TCP frame's grant: for that stream only. It never
	// enters the address table or a firewall, so a frame from a café admits one
	// stream, not the café.
	ScopeConnection Scope = iota + 1
	// ScopeSession is the grant of a knock to a service that requires a session:
	// a window if the service has a firewall, and the right to send one frame per
	// use; never `knocked`.
	ScopeSession
	// ScopeAddress is every other knock's grant: the address is in.
	ScopeAddress
)

// String returns "connection", "session" or "address".
func (s Scope) String() string {
	switch s {
	case ScopeConnection:
		return "connection"
	case ScopeSession:
		return "session"
	case ScopeAddress:
		return "address"
	default:
		return ""
	}
}

// GrantID names a grant: 8 random bytes.
type GrantID [8]byte

// NewGrantID draws an ID.
func NewGrantID() GrantID {
	var id GrantID
	_, _ = rand.Read(id[:]) // never fails: see crypto/rand
	return id
}

// String returns 16 hexadecimal digits.
func (id GrantID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes the digits.
func (id GrantID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 16 hexadecimal digits.
func (id *GrantID) UnmarshalText(text []byte) error {
	parsed, err := ParseGrantID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

var errGrantID = errors.New("a grant's ID has 16 hexadecimal digits")

// ParseGrantID reads 16 hexadecimal digits.
func ParseGrantID(s string) (GrantID, error) {
	var id GrantID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, errGrantID
	}
	copy(id[:], b)
	return id, nil
}

// Grant is the decision to let somebody in: who, from where, to which service,
// until when.
type Grant struct {
	ID      GrantID
	Client  string
	Service string
	Method  Method
	Scope   Scope
	// Prefix is whom it opens for: one address, or a prefix if the client may ask
	// for one. IPv4 is never in its IPv6-mapped form.
	Prefix netip.Prefix
	// Source is where the knock came from.
	Source netip.Addr
	// Made and Expires bound its life; both carry a monotonic reading when they
	// were made by this process, so that a clock set during its life changes
	// nothing. Zero Expires (connection scope only): as long as the stream.
	Made    time.Time
	Expires time.Time
	// Uses is how many connections are left, -1 for no limit.
	Uses int
	// Session is the knock's session ID, nil if it had none. In its place, grants for
	// knocks by HTTP, which have none, keep the device that knocked: so stores keep it
	// too.
	Session []byte
}

// equal reports whether other, which may be nil, is the same grant with the same
// content.
func (g *Grant) equal(other *Grant) bool {
	return other != nil && g.ID == other.ID && g.Client == other.Client && g.Service == other.Service && g.Method == other.Method &&
		g.Scope == other.Scope && g.Prefix == other.Prefix && g.Source == other.Source && g.Uses == other.Uses &&
		g.Made.Equal(other.Made) && g.Expires.Equal(other.Expires) && bytes.Equal(g.Session, other.Session)
}

// devicePrefix begins a Session that names a device.
const devicePrefix = "device:"

// Device names the device that knocked, of those that share a client; "" if that is
// not known, as for knocks other than by HTTP, in which a session ID is what the
// client says it is.
func (g *Grant) Device() string {
	if id, ok := strings.CutPrefix(string(g.Session), devicePrefix); ok && g.Method == MethodHTTP {
		return id
	}
	return ""
}

// Remaining is how long the grant still lasts, 0 if it is over.
func (g *Grant) Remaining(now time.Time) time.Duration {
	if g.Expires.IsZero() {
		return 0
	}
	return max(0, g.Expires.Sub(now))
}

// AddrPrefix is the prefix of one address, unmapped and without zone.
func AddrPrefix(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen())
}

// NormalPrefix is the prefix masked, with IPv4-mapped addresses as IPv4, and
// without zone. Mapped prefixes shorter than /96 are not valid and give the zero
// Prefix.
func NormalPrefix(p netip.Prefix) netip.Prefix {
	addr, bits := p.Addr().WithZone(""), p.Bits()
	if addr.Is4In6() {
		if bits -= 96; bits < 0 {
			return netip.Prefix{}
		}
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits).Masked()
}
