// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var errRecord = errors.New("record is damaged")

// decoder takes records apart. It keeps the names that it has seen, so that
// thousands of nonces of one client share its name.
type decoder struct {
	names map[string]string
	b     []byte
	bad   bool
}

// decode reads one record. Nothing in the result refers to b.
func (d *decoder) decode(b []byte) (record, error) {
	d.b, d.bad = b, false
	r := record{kind: recordKind(d.u8())}
	switch r.kind {
	case recordSpend:
		copy(r.nonce.Key[:], d.take(len(r.nonce.Key)))
		r.nonce.Time = time.UnixMilli(d.millis())
		r.nonce.Client = d.name(len(d.b))
	case recordGrant:
		r.grant = d.grant()
	case recordUngrant:
		copy(r.id[:], d.take(len(r.id)))
	case recordBan:
		r.ban.ban.Strikes = int(d.u32())
		r.ban.end, r.ban.length = d.span()
		r.ban.ban.Prefix = d.prefix()
	case recordUnban:
		r.prefix = d.prefix()
	case recordFloor:
		r.floor = d.millis()
	case recordSeal:
		r.count, r.next = d.u64(), d.u64()
	default:
		return r, fmt.Errorf("%w: it is of unknown kind %d", errRecord, r.kind)
	}
	if d.bad || len(d.b) > 0 {
		return r, fmt.Errorf("%w: it has the wrong length or an impossible value", errRecord)
	}
	return r, nil
}

func (d *decoder) grant() (k keptGrant) {
	g := &k.grant
	copy(g.ID[:], d.take(len(g.ID)))
	g.Scope = knockcore.Scope(d.u8())
	g.Uses = int(int64(d.u64()))
	k.end, k.length = d.span()
	g.Prefix = d.prefix()
	g.Source = d.addr()
	if method := d.name(int(d.u8())); method != "" { // a grant made by hand has none
		var err error
		if g.Method, err = knockcore.ParseMethod(method); err != nil {
			d.bad = true
		}
	}
	g.Client = d.name(int(d.u8()))
	g.Service = d.name(int(d.u8()))
	if session := d.take(int(d.u8())); len(session) > 0 {
		g.Session = append([]byte(nil), session...)
	}
	if g.Scope.String() == "" {
		d.bad = true
	}
	return k
}

// take returns the next n bytes, or nil and d.bad.
func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

func (d *decoder) millis() int64 {
	ms := int64(d.u64())
	if ms > maxMillis || ms < -maxMillis {
		d.bad = true
		return 0
	}
	return ms
}

func (d *decoder) span() (end moment, length time.Duration) {
	end = moment{wall: int64(d.u64()), boot: int64(d.u64())}
	length = time.Duration(d.u64())
	if length < 0 || length > farAway {
		d.bad = true
	}
	return end, length
}

// addr reads an address; one of no bytes is the zero Addr.
func (d *decoder) addr() netip.Addr {
	b := d.take(int(d.u8()))
	a, ok := netip.AddrFromSlice(b)
	if !ok && len(b) > 0 {
		d.bad = true
	}
	return a
}

func (d *decoder) prefix() netip.Prefix {
	p := netip.PrefixFrom(d.addr(), int(d.u8()))
	if !p.IsValid() {
		d.bad = true
	}
	return p
}

// maxNames bounds the names that are shared.
const maxNames = 1 << 16

func (d *decoder) name(n int) string {
	if n > maxName {
		d.bad = true
		return ""
	}
	b := d.take(n)
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if d.names == nil {
		d.names = make(map[string]string)
	}
	if len(d.names) < maxNames {
		d.names[s] = s
	}
	return s
}
