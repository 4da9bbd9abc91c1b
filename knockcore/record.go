// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"time"
)

// record is a grant in the 80 bytes that it takes where there may be a million.
type record struct {
	id      GrantID
	addr    addrKey // of the prefix
	expires time.Time
	life    time.Duration // from Made to Expires
	rest    *recordRest   // nil: source, session, uses and Made are as usual
	holder  uint32        // 0: the record is free
	place   uint32        // in the registry's order of expiry
	bits    int16         // of the prefix
	v4      bool
	method  Method
	scope   Scope
}

// recordRest is what most grants of address scope do not have.
type recordRest struct {
	source  netip.Addr
	session []byte
	uses    int
	made    time.Time
}

// pack fills the record, but for its place.
func (r *record) pack(g *Grant, holder uint32) {
	r.id, r.holder, r.method, r.scope = g.ID, holder, g.Method, g.Scope
	r.addr, r.v4, r.bits = keyOf(g.Prefix.Addr()), g.Prefix.Addr().Is4(), int16(g.Prefix.Bits())
	r.expires, r.life, r.rest = g.Expires, g.Expires.Sub(g.Made), nil
	if g.Source != g.Prefix.Addr() || g.Session != nil || g.Uses != -1 || g.Made != g.Expires.Add(-r.life) {
		r.rest = &recordRest{g.Source, g.Session, g.Uses, g.Made}
	}
}

// unpack makes the grant again.
func (r *record) unpack(g *Grant, of *holder) {
	*g = Grant{
		ID: r.id, Client: of.client, Service: of.service, Method: r.method, Scope: r.scope,
		Prefix: r.prefix(), Source: r.addr.addr(r.v4), Made: r.expires.Add(-r.life), Expires: r.expires, Uses: -1,
	}
	if r.rest != nil {
		g.Source, g.Session, g.Uses, g.Made = r.rest.source, r.rest.session, r.rest.uses, r.rest.made
	}
}

func (r *record) prefix() netip.Prefix { return netip.PrefixFrom(r.addr.addr(r.v4), int(r.bits)) }

// grantSet holds grants as records. Each has a number as long as it is in.
type grantSet struct {
	holders *holders
	numbers map[GrantID]uint32
	chunks  []*[chunkLen]record // number 0 is not used
	free    []uint32
}

const chunkLen = 1 << 8

func newGrantSet(holders *holders) grantSet {
	return grantSet{holders: holders, numbers: make(map[GrantID]uint32)}
}

func (s *grantSet) len() int { return len(s.numbers) }

// at returns the record with a number.
func (s *grantSet) at(n uint32) *record { return &s.chunks[n/chunkLen][n%chunkLen] }

// grant makes the grant with a number.
func (s *grantSet) grant(n uint32) *Grant {
	g, r := new(Grant), s.at(n)
	r.unpack(g, s.holders.of(r.holder))
	return g
}

// put keeps a grant, in place of one with the same ID.
func (s *grantSet) put(g *Grant) uint32 {
	return s.putOf(s.holders.number(holder{g.Service, g.Client}), g)
}

// putOf is put for a grant of the holder with this number.
func (s *grantSet) putOf(holder uint32, g *Grant) uint32 {
	n, ok := s.numbers[g.ID]
	if !ok {
		n = s.room()
		s.numbers[g.ID] = n
	}
	s.at(n).pack(g, holder)
	return n
}

// room takes a number that is free.
func (s *grantSet) room() uint32 {
	if len(s.free) == 0 {
		first := uint32(len(s.chunks) * chunkLen)
		s.chunks = append(s.chunks, new([chunkLen]record))
		for n := first + chunkLen - 1; n > first; n-- {
			s.free = append(s.free, n)
		}
		if first > 0 {
			s.free = append(s.free, first)
		}
	}
	n := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return n
}

// remove forgets the grant with this ID, if there is one.
func (s *grantSet) remove(id GrantID) {
	if n, ok := s.numbers[id]; ok {
		delete(s.numbers, id)
		*s.at(n) = record{}
		s.free = append(s.free, n)
	}
}

// chunk appends copies of the grants of a chunk to buffer.
func (s *grantSet) chunk(n int, buffer []Grant) []Grant {
	for i := range s.chunks[n] {
		if r := &s.chunks[n][i]; r.holder != 0 {
			buffer = append(buffer, Grant{})
			r.unpack(&buffer[len(buffer)-1], s.holders.of(r.holder))
		}
	}
	return buffer
}

// list returns the grants that f accepts (nil: all).
func (s *grantSet) list(f func(*Grant) bool) (found []*Grant) {
	for n := range s.chunks {
		found = accepted(found, s.chunk(n, nil), f)
	}
	return found
}

// accepted appends copies of the grants that f accepts (nil: all).
func accepted(found []*Grant, grants []Grant, f func(*Grant) bool) []*Grant {
	for i := range grants {
		if f == nil || f(&grants[i]) {
			kept := grants[i]
			found = append(found, &kept)
		}
	}
	return found
}
