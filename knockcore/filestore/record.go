// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// recordKind says what a record is; the values are part of the format.
type recordKind byte

const (
	recordSpend   recordKind = 1 // a nonce was spent
	recordGrant   recordKind = 2 // a grant was saved
	recordUngrant recordKind = 3 // a grant was deleted
	recordBan     recordKind = 4 // a ban was saved
	recordUnban   recordKind = 5 // a ban was deleted
	recordFloor   recordKind = 6 // the guard's floor; in snapshots
	recordSeal    recordKind = 7 // the last record of a file that is complete
)

const (
	// maxRecord is the greatest number of bytes in a record.
	maxRecord = 2048
	// maxName is the greatest number of bytes in a name or session ID.
	maxName = 255
	// maxMillis bounds timestamps, in ms from 1970 either way: some 140,000 years.
	maxMillis = 1 << 52
)

// record is a decoded record; kind says which fields are set.
type record struct {
	kind   recordKind
	nonce  knockcore.Nonce
	id     knockcore.GrantID
	grant  keptGrant
	ban    keptBan
	prefix netip.Prefix
	floor  int64  // Unix ms
	count  uint64 // of records before the seal
	next   uint64 // generation of the segment after this one; 0 in snapshots
}

// keptGrant is a grant as it is kept: Made and Expires are zero, end and length
// say the same.
type keptGrant struct {
	grant  knockcore.Grant
	end    moment
	length time.Duration
}

// keptBan is a ban as it is kept: Made and Until are zero.
type keptBan struct {
	ban    knockcore.Ban
	end    moment
	length time.Duration
}

var le = binary.LittleEndian

func appendSpend(b []byte, n knockcore.Nonce) []byte {
	b = append(b, byte(recordSpend))
	b = append(b, n.Key[:]...)
	b = le.AppendUint64(b, uint64(n.Time.UnixMilli()))
	return append(b, n.Client...)
}

func appendGrant(b []byte, k *keptGrant) []byte {
	g := &k.grant
	b = append(b, byte(recordGrant))
	b = append(b, g.ID[:]...)
	b = append(b, byte(g.Scope))
	b = le.AppendUint64(b, uint64(g.Uses))
	b = appendSpan(b, k.end, k.length)
	b = appendPrefix(b, g.Prefix)
	b = appendAddr(b, g.Source)
	for _, s := range [...]string{g.Method.String(), g.Client, g.Service, string(g.Session)} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b
}

func appendUngrant(b []byte, id knockcore.GrantID) []byte {
	return append(append(b, byte(recordUngrant)), id[:]...)
}

func appendBan(b []byte, k *keptBan) []byte {
	b = append(b, byte(recordBan))
	b = le.AppendUint32(b, uint32(min(k.ban.Strikes, 1<<31-1)))
	b = appendSpan(b, k.end, k.length)
	return appendPrefix(b, k.ban.Prefix)
}

func appendUnban(b []byte, p netip.Prefix) []byte {
	return appendPrefix(append(b, byte(recordUnban)), p)
}

func appendFloor(b []byte, floor int64) []byte {
	return le.AppendUint64(append(b, byte(recordFloor)), uint64(floor))
}

func appendSeal(b []byte, count, next uint64) []byte {
	return le.AppendUint64(le.AppendUint64(append(b, byte(recordSeal)), count), next)
}

func appendSpan(b []byte, end moment, length time.Duration) []byte {
	b = le.AppendUint64(b, uint64(end.wall))
	b = le.AppendUint64(b, uint64(end.boot))
	return le.AppendUint64(b, uint64(length))
}

func appendAddr(b []byte, a netip.Addr) []byte {
	raw := a.WithZone("").AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	return append(appendAddr(b, p.Addr()), byte(p.Bits()))
}
