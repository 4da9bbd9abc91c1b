// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// The errors that callers can tell apart, by errors.Is.
var (
	// ErrStopped means that the firewall was stopped, or never set up.
	ErrStopped = errors.New("the firewall is not running")
	// ErrUnknownService means that a window is for a service that the firewall was
	// not set up with.
	ErrUnknownService = errors.New("unknown service")
	// ErrExpired means that a window to open is over already.
	ErrExpired = errors.New("the window is over already")
	// ErrUnsupported means that this kind of firewall can't do what is asked, or
	// that the system lacks it.
	ErrUnsupported = errors.New("not supported")
)

// Key is what makes windows equal.
type Key struct {
	Service string
	Prefix  netip.Prefix // masked, unmapped, without zone
}

// Windows are windows and when they end; the zero time is for ever, or unknown.
type Windows map[Key]time.Time

// Change is what becomes of a window. Old is the zero time if it was not open,
// New if it closes.
type Change struct {
	Key
	Old, New time.Time
}

// KeyOf brings the window to its normal form.
func KeyOf(w knockcore.Window) (Key, error) {
	addr, bits := w.Prefix.Addr(), w.Prefix.Bits()
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	p := netip.PrefixFrom(addr.WithZone(""), bits).Masked()
	if !w.Prefix.IsValid() || !p.IsValid() {
		return Key{}, fmt.Errorf("window for service %s: the prefix is not valid", w.Service)
	}
	return Key{w.Service, p}, nil
}

// normal is an expiry as it is kept: in whole milliseconds, without a monotonic
// clock, so that what is read back is equal.
func normal(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Round(0).UTC().Truncate(time.Millisecond)
}

// live is what of the windows is not over.
func (w Windows) live(now time.Time) Windows {
	l := Windows{}
	for k, expires := range w {
		if expires.IsZero() || expires.After(now) {
			l[k] = expires
		}
	}
	return l
}

// Token is the name of a service in names of at most size bytes: the name itself
// if it has only letters, digits and underscores, else what is left of it and a
// hash. Size must be 12 at least.
func Token(service string, size int) string {
	clean := strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, service)
	// A name with the mark of a hash is hashed too, so that none looks like another's.
	if clean == service && len(clean) <= size && !strings.Contains(clean, "__") {
		return clean
	}
	sum := sha256.Sum256([]byte(service))
	return clean[:min(size-10, len(clean))] + "__" + hex.EncodeToString(sum[:4])
}

// SecondsUntil is the time left in whole seconds, rounded up, 1 at least.
func SecondsUntil(now, expires time.Time) int64 {
	return max(1, int64((expires.Sub(now)+time.Second-1)/time.Second))
}
