// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// sampleRecords is one record of each kind.
func sampleRecords() [][]byte {
	now := time.UnixMilli(1_800_000_000_123)
	g := newGrant(7, time.Hour, now)
	g.Session = bytes.Repeat([]byte{0xa5}, 32)
	g.Scope = knockcore.ScopeSession
	g.Prefix = netip.MustParsePrefix("2001:db8::/56")
	k := &keptGrant{grant: *g, end: moment{wall: now.UnixNano(), boot: 12345}, length: time.Hour}
	byHand := *k
	byHand.grant.Method, byHand.grant.Source, byHand.grant.Session = knockcore.MethodNone, netip.Addr{}, nil
	b := &keptBan{ban: knockcore.Ban{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Strikes: 3}, end: moment{wall: -1, boot: -1}, length: time.Minute}
	return [][]byte{
		appendSpend(nil, newNonce(1, "alice", now)),
		appendGrant(nil, k),
		appendGrant(nil, &byHand),
		appendUngrant(nil, g.ID),
		appendBan(nil, b),
		appendUnban(nil, b.ban.Prefix),
		appendFloor(nil, now.UnixMilli()),
		appendSeal(nil, 42, 7),
	}
}

// reencode writes a decoded record again.
func reencode(r *record) []byte {
	switch r.kind {
	case recordSpend:
		return appendSpend(nil, r.nonce)
	case recordGrant:
		return appendGrant(nil, &r.grant)
	case recordUngrant:
		return appendUngrant(nil, r.id)
	case recordBan:
		return appendBan(nil, &r.ban)
	case recordUnban:
		return appendUnban(nil, r.prefix)
	case recordFloor:
		return appendFloor(nil, r.floor)
	default:
		return appendSeal(nil, r.count, r.next)
	}
}

// sampleFile is a file of all sample records.
func sampleFile(magic string, size int) []byte {
	h := header{gen: 7, boot: bootID{1, 2, 3}}
	if magic == journalMagic {
		h.size = int64(size)
	}
	b := h.encode(magic)
	crc := le.Uint32(b[headerLen-4:])
	records := sampleRecords()
	records[len(records)-1] = appendSeal(nil, uint64(len(records)-1), 8)
	for _, r := range records {
		frame := append(make([]byte, frameLen), r...)
		crc = sealFrame(frame, crc)
		b = append(b, frame...)
	}
	if magic == journalMagic {
		b = append(b, make([]byte, size-len(b))...)
	}
	return b
}

func TestRecords(t *testing.T) {
	var d decoder
	for _, b := range sampleRecords() {
		r, err := d.decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if again := reencode(&r); !bytes.Equal(b, again) {
			t.Errorf("kind %d: %x became %x", r.kind, b, again)
		}
		for length := range b {
			short, err := d.decode(b[:length])
			if err == nil && short.kind != recordSpend { // whose client may be anything
				t.Errorf("kind %d of %d bytes is taken at %d", r.kind, len(b), length)
			}
		}
		if _, err := d.decode(append(bytes.Clone(b), 0)); err == nil && r.kind != recordSpend {
			t.Errorf("kind %d is taken with a byte too many", r.kind)
		}
		if len(b) > maxRecord/2 {
			t.Errorf("a record has %d bytes", len(b))
		}
	}
	if _, err := d.decode(nil); err == nil {
		t.Error("nothing is a record")
	}
	longest := &keptGrant{grant: *newGrant(1, 0, time.Time{})}
	name := string(bytes.Repeat([]byte{'x'}, maxName))
	longest.grant.Client, longest.grant.Service, longest.grant.Session = name, name, []byte(name)
	if n := len(appendGrant(nil, longest)); n > maxRecord || int64(n)+headerLen+sealLen > minSegment {
		t.Errorf("the longest grant has %d bytes", n)
	}
}

func TestHorizonFile(t *testing.T) {
	h := horizon{flags: flagClean, boot: bootID{9}, ceiling: 1_800_000_000_000, base: 3, last: 5, synced: 777, chain: 0xdeadbeef}
	b := h.encode()
	if len(b) != horizonLen {
		t.Fatalf("%d bytes", len(b))
	}
	got, err := decodeHorizon(append(b, make([]byte, 100)...))
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Fatal(got, err)
	}
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			if _, err := decodeHorizon(c); err == nil {
				t.Fatalf("bit %d of byte %d may be flipped", bit, i)
			}
		}
	}
	for _, bad := range []horizon{{base: 2, last: 1}, {ceiling: maxMillis + 1}, {ceiling: -maxMillis - 1}} {
		if _, err := decodeHorizon(bad.encode()); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// FuzzJournal scans arbitrary files, and decodes arbitrary records: no panic, no
// record that is not what it says, no memory beyond what was read.
func FuzzJournal(f *testing.F) {
	f.Add(sampleFile(journalMagic, 4096))
	f.Add(sampleFile(snapshotMagic, 0))
	f.Add(sampleFile(journalMagic, 4096)[:300])
	f.Add([]byte{})
	f.Add(make([]byte, headerLen+100))
	for _, r := range sampleRecords() {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, magic := range []string{journalMagic, snapshotMagic} {
			n := 0
			c, err := scan(bytes.NewReader(data), int64(len(data)), magic, func(r *record, _ *header) error {
				n++
				return nil
			})
			if c.end > int64(len(data)) || n > len(data)/frameLen {
				t.Fatalf("%d records up to byte %d of %d", n, c.end, len(data))
			}
			if err == nil && magic == snapshotMagic && !c.sealed {
				t.Fatal("a snapshot without a seal is whole")
			}
		}
		// As a record in a file of its own, with right checksums.
		var d decoder
		r, err := d.decode(data)
		if err != nil || len(data) > maxRecord {
			return
		}
		if again := reencode(&r); !bytes.Equal(data, again) && r.kind != recordGrant && r.kind != recordBan {
			t.Fatalf("%x became %x", data, again)
		}
		h := header{gen: 1}
		file := h.encode(snapshotMagic)
		frame := append(make([]byte, frameLen), data...)
		sealFrame(frame, le.Uint32(file[headerLen-4:]))
		m := newMachine(t)
		s := &Store{opts: m.options("x"), guard: knockcore.NewReplayGuard(4)}
		s.opts.fill()
		s.clock = newClock(s.opts.Now, s.opts.Boot)
		l := &found{grants: map[knockcore.GrantID]*keptGrant{}, bans: map[netip.Prefix]*keptBan{}}
		_, _ = scan(bytes.NewReader(append(file, frame...)), 0, snapshotMagic, s.apply(l))
		if len(l.grants)+len(l.bans)+s.guard.Len() > 1 {
			t.Fatal("one record became several")
		}
	})
}
