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

// FuzzUDPSequences does random things, each described by 4 bytes, and checks
// that every bound holds and that a sequence completes at most once.
func FuzzUDPSequences(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0})
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		const perSource, capacity = 3, 12
		u := newUDPSequences(t, UDPSequenceConfig{MaxPerSource: perSource, MaxOpen: capacity})
		now := time.Unix(1000, 0)
		for ; len(ops) >= 4; ops = ops[4:] {
			src, client := udpSource(int(ops[0]&7)), fmt.Sprint(ops[0]>>3&7)
			d := udpPart(ops[1]&15, ops[2]&3, 2+ops[2]>>7)
			d.Total = 3 - ops[2]>>7
			if ops[1]>>7 == 1 {
				d.Session = make([]byte, 16)
			}
			now = now.Add(time.Duration(int8(ops[3])) * time.Second)
			before := u.Len()
			done, err := u.Add(now, src, client, d)
			if done && err != nil {
				t.Fatal("complete and refused")
			}
			if u.Len() > before+1 {
				t.Fatal("one part opened several sequences")
			}
			checkOpenTable(t, u.open, perSource, capacity)
			if len(u.done) != u.past.Len() || len(u.done) > capacity {
				t.Fatalf("%d remembered, %d listed", len(u.done), u.past.Len())
			}
			if done {
				if again, err := u.Add(now, src, client, d); again || knockcore.ReasonOf(err) != knockcore.ReasonReplay {
					t.Fatalf("again: %v, %v", again, err)
				}
			}
		}
		u.Sweep(now.Add(24 * time.Hour))
		u.Sweep(now.Add(48 * time.Hour))
		if u.Len() != 0 || len(u.done) != 0 || len(u.open.sources) != 0 || len(u.open.clients) != 0 {
			t.Fatal("something stays for ever")
		}
	})
}

// checkOpenTable checks that the parts of the table agree and are within bounds.
func checkOpenTable[K comparable, S any](t *testing.T, o *openTable[K, S], perSource, capacity int) {
	t.Helper()
	bySource, byClient := 0, 0
	for src, list := range o.sources {
		if len(list) == 0 || len(list) > perSource {
			t.Fatalf("%d sequences of %v", len(list), src)
		}
		for _, e := range list {
			if e.src != src || o.entries[e.key] != e {
				t.Fatalf("stray entry of %v", src)
			}
		}
		bySource += len(list)
	}
	for client, n := range o.clients {
		if n <= 0 || n > o.perClient {
			t.Fatalf("%d sequences of client %s", n, client)
		}
		byClient += n
	}
	if n := len(o.entries); n > capacity || n != bySource || n != byClient || n != o.order.Len() {
		t.Fatalf("%d entries, %d by source, %d by client, %d in order", n, bySource, byClient, o.order.Len())
	}
}

func TestUDPSequencesConcurrent(t *testing.T) {
	u := newUDPSequences(t, UDPSequenceConfig{MaxPerSource: 64})
	var wg sync.WaitGroup
	var mu sync.Mutex
	complete := map[byte]int{}
	for g := range 3 {
		wg.Go(func() {
			for id := range byte(50) {
				for i := range byte(3) {
					if done, _ := u.Add(time.Unix(0, int64(g)), udpSource(1), "a", udpPart(id, i, 3)); done {
						mu.Lock()
						complete[id]++
						mu.Unlock()
					}
				}
			}
		})
	}
	wg.Wait()
	for id := range byte(50) {
		if complete[id] != 1 {
			t.Errorf("sequence %d completed %d times", id, complete[id])
		}
	}
}
