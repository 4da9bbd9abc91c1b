// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestSYNSlot(t *testing.T) {
	for _, c := range []struct{ unix, seconds, want int64 }{
		{0, 30, 0},
		{29, 30, 0},
		{30, 30, 1},
		{-1, 30, -1},
		{-30, 30, -1},
		{-31, 30, -2},
		{1767225607, 30, 58907520},
		{-5, 1, -5},
		{-5, 0, -5},
		{7, -3, 7},
	} {
		if got := SYNSlot(c.unix, c.seconds); got != c.want {
			t.Errorf("SYNSlot(%d, %d) = %d, want %d", c.unix, c.seconds, got, c.want)
		}
	}
}

// synClients makes n clients with different secrets.
func synClients(n int) []vectorClient {
	list := make([]vectorClient, n)
	for i := range list {
		list[i] = vectorClient{fmt.Sprintf("client-%05d", i), fmt.Appendf(nil, "the secret of client %d", i)}
	}
	return list
}

// TestSYNIndexSlots walks the clock in every way, with different slots for the
// two methods, and compares with the definition: -1, 0 and +1 are valid.
func TestSYNIndexSlots(t *testing.T) {
	clients := synClients(3)
	at := func(unix int64) time.Time { return time.Unix(unix, 0) }
	cfg := SYNIndexConfig{Methods: bothSYN, Ports: []uint16{22, 443}, SlotSeconds: 10, SeqSlotSeconds: 25, Legacy: true}
	x := synIndexOf(t, clients, cfg, at(1000))
	cred := testCredential(clients[2].ID, clients[2].Secret)
	for i, unix := range []int64{1000, 1009, 1010, 1019, 1020, 1035, 1030, 1100, 1000, 990, 995, 1000000, 1000010, 5, -5, -100, 0} {
		if i%3 == 1 {
			x.Prepare(at(unix))
		}
		for delta := int64(-3); delta <= 3; delta++ {
			want := -1 <= delta && delta <= 1
			slot := SYNSlot(unix, 10) + delta
			m, ok := x.Lookup(at(unix), 443, SYNTag(cred, 443, slot))
			if ok != want || ok && (m.Slot != slot || m.Method != knockcore.MethodTCPSYN || m.Port != 443 || m.Credential.Client.ID != clients[2].ID) {
				t.Fatalf("at %d, slot %+d: %+v, %v", unix, delta, m, ok)
			}
			slot = SYNSlot(unix, 25) + delta
			for _, legacy := range []bool{false, true} {
				f, port := SYNSeqTag(cred, 22, slot, 2, legacy)
				m, ok = x.Lookup(at(unix), port, f)
				if ok != want || ok && (m.Slot != slot || m.Method != knockcore.MethodTCPSYNSeq || m.Port != 22 || m.Index != 2 || m.Total != 3 || m.Legacy != legacy) {
					t.Fatalf("at %d, slot %+d, legacy %v: %+v, %v", unix, delta, legacy, m, ok)
				}
			}
		}
	}
}

// TestSYNIndexIncremental checks that slots are computed once.
func TestSYNIndexIncremental(t *testing.T) {
	now := time.Unix(3000, 0)
	x := synIndexOf(t, synClients(2), SYNIndexConfig{Methods: bothSYN, Ports: []uint16{22}}, now)
	before := x.table.Load()
	x.Prepare(now.Add(29 * time.Second))
	if x.table.Load() != before {
		t.Fatal("Prepare did something within the slot")
	}
	if x.Lookup(now.Add(59*time.Second), 22, SYNFields{}); x.table.Load() != before {
		t.Fatal("the slot ahead does not spare work")
	}
	x.Prepare(now.Add(30 * time.Second))
	after := x.table.Load()
	for i := range after.slots {
		for j := range synSlots - 1 {
			if &after.slots[i][j][0] != &before.slots[i][j+1][0] {
				t.Errorf("slot %d of kind %d was computed again", j, i)
			}
		}
	}
	if len(after.tags) != synSlots*2*(1+DefaultSequenceLength) {
		t.Errorf("%d tags", len(after.tags))
	}
}

func TestSYNIndexMethods(t *testing.T) {
	now, clients := time.Unix(3000, 0), synClients(1)
	cred := testCredential(clients[0].ID, clients[0].Secret)
	part, _ := SYNSeqTag(cred, 22, 100, 0, false)
	for _, c := range []struct {
		methods          knockcore.MethodSet
		single, sequence bool
	}{
		{0, false, false},
		{knockcore.NewMethodSet(knockcore.MethodTCPSYN), true, false},
		{knockcore.NewMethodSet(knockcore.MethodTCPSYNSeq), false, true},
		{knockcore.AllMethods, true, true},
	} {
		x := synIndexOf(t, clients, SYNIndexConfig{Methods: c.methods, Ports: []uint16{22}}, now)
		_, single := x.Lookup(now, 22, SYNTag(cred, 22, 100))
		_, sequence := x.Lookup(now, 22, part)
		if single != c.single || sequence != c.sequence {
			t.Errorf("%v: single %v, sequence %v", c.methods.Methods(), single, sequence)
		}
	}
}

// TestSYNIndexRotation: both secrets of a client count, and clients that share
// one are told apart.
func TestSYNIndexRotation(t *testing.T) {
	now := time.Unix(3000, 0)
	old, shared := knockcore.NewSecret([]byte("the old secret 12345")), knockcore.NewSecret([]byte("the shared one 12345"))
	k, err := knockcore.NewKeyring([]*knockcore.Client{
		{ID: "a", Secrets: []knockcore.Secret{old, shared}},
		{ID: "b", Secrets: []knockcore.Secret{shared}},
	})
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewSYNIndex(SYNIndexConfig{Keyring: k, Methods: bothSYN, Ports: []uint16{22}}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range k.Credentials() {
		m, ok := x.Lookup(now, 22, SYNTag(&c, 22, 100))
		if !ok || m.Credential.Client != c.Client || !m.Credential.Secret.Equal(c.Secret) {
			t.Errorf("client %s: %+v, %v", c.Client.ID, m, ok)
		}
	}
}

func TestSYNConfigErrors(t *testing.T) {
	k := vectorKeyring(t, synClients(2))
	ports := make([]uint16, 65535)
	for name, cfg := range map[string]SYNIndexConfig{
		"length 1": {Length: 1}, "length 6": {Length: 6}, "length -1": {Length: -1},
		"negative slot": {SlotSeconds: -1}, "negative sequence slot": {SeqSlotSeconds: -30},
		"too many tags": {Ports: ports, Methods: bothSYN, Length: 5},
	} {
		cfg.Keyring = k
		if _, err := NewSYNIndex(cfg, time.Unix(0, 0)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for name, cfg := range map[string]SYNSequenceConfig{
		"length 1": {Length: 1}, "length 6": {Length: 6}, "window": {Window: -1}, "per source": {MaxPerSource: -1}, "open": {MaxOpen: -1},
	} {
		if _, err := NewSYNSequences(cfg); err == nil {
			t.Errorf("sequence %s is accepted", name)
		}
	}
}

func TestSYNIndexConcurrent(t *testing.T) {
	clients := synClients(4)
	cred := testCredential(clients[3].ID, clients[3].Secret)
	start := time.Unix(90000, 0)
	x := synIndexOf(t, clients, SYNIndexConfig{Methods: bothSYN, Ports: []uint16{22}, SlotSeconds: 1, SeqSlotSeconds: 3}, start)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				now := start.Add(time.Duration(i*(g+1)) * 100 * time.Millisecond)
				if g == 0 {
					x.Prepare(now)
				}
				if _, ok := x.Lookup(now, 22, SYNTag(cred, 22, now.Unix()+1)); !ok {
					t.Errorf("not found at %v", now)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestSYNLookupAllocs: foreign SYNs and knocks alike cost no allocation.
func TestSYNLookupAllocs(t *testing.T) {
	now, clients := time.Unix(3000, 0), synClients(2)
	x := synIndexOf(t, clients, SYNIndexConfig{Methods: bothSYN, Ports: []uint16{22}}, now)
	f := SYNTag(testCredential(clients[0].ID, clients[0].Secret), 22, 100)
	for _, port := range []uint16{22, 23} {
		if n := testing.AllocsPerRun(100, func() { _, _ = x.Lookup(now, port, f) }); n != 0 {
			t.Errorf("port %d: %v allocations", port, n)
		}
	}
}
