// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// build makes the table for now. Slots that old has are taken over, so that an
// ordinary step computes the HMACs of one new slot; the map is filled anew,
// because readers use the old one meanwhile.
func (x *SYNIndex) build(old *synTable, now time.Time) *synTable {
	t := &synTable{}
	total := 0
	for i, k := range x.kinds {
		if k.parts == nil {
			continue
		}
		t.first[i] = SYNSlot(now.Unix(), k.slotSeconds) - 1
		for j := range t.slots[i] {
			slot := t.first[i] + int64(j)
			if at := slot - old.first[i]; 0 <= at && at < synSlots && old.slots[i][at] != nil {
				t.slots[i][j] = old.slots[i][at]
			} else {
				t.slots[i][j] = x.compute(k, slot)
			}
			total += len(t.slots[i][j])
		}
	}
	t.tags = make(map[synKey]synRef, total)
	for i := range t.slots {
		for j, tagged := range t.slots[i] {
			for _, e := range tagged {
				// Two of all tags are equal with a chance of about total² / 2⁸¹; the
				// later one is then not recognised.
				if _, taken := t.tags[e.key]; !taken {
					e.ref.slot = uint8(i<<7 | j)
					t.tags[e.key] = e.ref
				}
			}
		}
	}
	return t
}

// compute makes the tags of all knocks of one kind in one slot.
func (x *SYNIndex) compute(k synKind, slot int64) []synTagged {
	s := knockcore.GetMACScratch()
	defer s.Free()
	list := make([]synTagged, 0, len(x.creds)*len(x.ports)*len(k.parts))
	for i := range x.creds {
		c := &x.creds[i]
		for _, port := range x.ports {
			for _, part := range k.parts {
				var f SYNFields
				dst := port
				if k.method == knockcore.MethodTCPSYN {
					f = synTag(&c.MAC, s, c.Client.ID, port, slot)
				} else {
					f, dst = synSeqTag(&c.MAC, s, c.Client.ID, port, slot, part&^synLegacy, part&synLegacy != 0)
				}
				list = append(list, synTagged{newSYNKey(f, dst), synRef{cred: uint32(i), port: port, part: part}})
			}
		}
	}
	return list
}
