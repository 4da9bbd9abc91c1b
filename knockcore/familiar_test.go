// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

func guesses(f *Familiar, addr string) []int {
	return slices.Collect(f.Guesses(netip.MustParseAddr(addr)))
}

func TestFamiliar(t *testing.T) {
	f := NewFamiliar(100)
	remember := func(addr string, key int) { f.Remember(netip.MustParseAddr(addr), key) }
	remember("192.0.2.1", 7)
	remember("192.0.2.1", 0)
	remember("192.0.2.1", 7)
	if got := guesses(f, "::ffff:192.0.2.1"); !slices.Equal(got, []int{0, 7}) {
		t.Errorf("%v", got)
	}
	if got := guesses(f, "192.0.2.2"); len(got) != 0 {
		t.Errorf("another address: %v", got)
	}
	for key := range 10 {
		remember("192.0.2.1", 20+key)
	}
	if got := guesses(f, "192.0.2.1"); !slices.Equal(got, []int{29, 28, 27, 26}) {
		t.Errorf("of many keys, those are remembered: %v", got)
	}
	remember("2001:db8::1", 99)
	if got := guesses(f, "2001:db8::2:0:0:1"); !slices.Equal(got, []int{99}) {
		t.Errorf("another address of the /64: %v", got)
	}
	if got := guesses(f, "2001:db8:0:1::1"); len(got) != 0 {
		t.Errorf("an address of another /64: %v", got)
	}
	for _, none := range []*Familiar{nil, NewFamiliar(0), NewFamiliar(1)} {
		none.Remember(netip.MustParseAddr("192.0.2.1"), 0)
		if got := guesses(none, "192.0.2.1"); len(got) != 0 {
			t.Errorf("without a choice: %v", got)
		}
	}
	f.Remember(netip.Addr{}, 1)
	for range f.Guesses(netip.Addr{}) {
		t.Error("an address that is none is known")
	}
	addr := netip.MustParseAddr("192.0.2.1")
	if n := testing.AllocsPerRun(100, func() {
		for range f.Guesses(addr) { //nolint:revive // what it costs
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestFamiliarBounded: however many addresses come, the size stays, and each of the
// last ones of a crowd of the expected size is known with hardly an exception.
func TestFamiliarBounded(t *testing.T) {
	const keys = 1000
	f := NewFamiliar(keys)
	sets := len(f.sets)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20 * keys {
				f.Remember(addrOf(g<<20+i), i%keys)
			}
		})
	}
	wg.Wait()
	for i := range keys {
		f.Remember(addrOf(i), i)
	}
	known := 0
	for i := range keys {
		for key := range f.Guesses(addrOf(i)) {
			if key == i {
				known++
			}
		}
	}
	if len(f.sets) != sets || known < keys*9/10 {
		t.Errorf("%d sets, before %d; %d of %d are known", len(f.sets), sets, known, keys)
	}
	if n := len(NewFamiliar(1 << 30).sets); n != familiarMost {
		t.Errorf("%d sets for a thousand million keys", n)
	}
}

// TestKeyringRemembers credentials of its own that share their secret with nobody.
func TestKeyringRemembers(t *testing.T) {
	ring, scratch := sharingRing(t, 12), NewMACScratch()
	addr, msg := netip.MustParseAddr("192.0.2.1"), []byte("a message")
	find := func(ring *Keyring, c *Credential) []*Credential {
		hint := slices.Clone(c.MAC.Sum(scratch, msg)[:HintLen])
		return ring.Familiar(addr, scratch, msg, hint, nil)
	}
	for i := range ring.Credentials() {
		c := &ring.Credentials()[i]
		if got := find(ring, c); len(got) != 0 {
			t.Errorf("%s is known before", c.Client.ID)
		}
		ring.Remember(addr, c)
		if got := find(ring, c); i%3 == 0 && len(got) != 0 || i%3 != 0 && !slices.Equal(got, []*Credential{c}) {
			t.Errorf("%s: %v", c.Client.ID, got)
		}
	}
	again := sharingRing(t, 12)
	again.Remember(addr, &ring.Credentials()[1])
	byHand := ring.Credentials()[1]
	again.Remember(addr, &byHand)
	if got := find(again, &ring.Credentials()[1]); len(got) != 0 {
		t.Error("another keyring has it")
	}
}

// BenchmarkFamiliar is what looking at an address costs, beside what it saves.
func BenchmarkFamiliar(b *testing.B) {
	ring, scratch := sharingRing(b, 10_000), NewMACScratch()
	cred, known := &ring.Credentials()[5_000], netip.MustParseAddr("192.0.2.1")
	ring.Remember(known, cred)
	msg := make([]byte, 48)
	hint := slices.Clone(cred.MAC.Sum(scratch, msg)[:HintLen])
	var room [1]*Credential
	for _, addr := range []netip.Addr{known, netip.MustParseAddr("192.0.2.2")} {
		b.Run(fmt.Sprintf("known=%v", addr == known), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if found := ring.Familiar(addr, scratch, msg, hint, room[:0]); (len(found) == 1) != (addr == known) {
					b.Fatal(found)
				}
			}
		})
	}
}
