// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// sharingRing has n clients, of whom every third has the same secret.
func sharingRing(tb testing.TB, n int) *Keyring {
	tb.Helper()
	clients := make([]*Client, n)
	for i := range clients {
		secret := fmt.Sprintf("the secret of client %d", i)
		if i%3 == 0 {
			secret = "the secret of many clients"
		}
		clients[i] = &Client{ID: fmt.Sprintf("c%06d", i), Secrets: []Secret{NewSecret([]byte(secret))}}
	}
	ring, err := NewKeyring(clients)
	if err != nil {
		tb.Fatal(err)
	}
	return ring
}

// TestCandidates finds exactly those whose HMAC fits, in order, whoever scans, and
// from many goroutines at the same time.
func TestCandidates(t *testing.T) {
	for _, n := range []int{1, scanBlock, scanAlone, scanAlone + 1, 3*scanBlock + 7} {
		ring := sharingRing(t, n)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				scratch := NewMACScratch()
				for round := range 20 {
					msg := fmt.Appendf(nil, "message %d of %d", round, g)
					at := (round*37 + g) % n
					hint := slices.Clone(ring.Credentials()[at].MAC.Sum(scratch, msg)[:HintLen])
					var want []*Credential
					for i := range ring.Credentials() {
						if i == at || at%3 == 0 && i%3 == 0 {
							want = append(want, &ring.Credentials()[i])
						}
					}
					if got := ring.Candidates(scratch, msg, hint, nil); !slices.Equal(got, want) {
						t.Errorf("%d clients, client %d: %d candidates, want %d", n, at, len(got), len(want))
						return
					}
					hint[0]++
					if got := ring.Candidates(scratch, msg, hint, nil); len(got) != 0 {
						t.Errorf("%d clients: %d candidates for a wrong hint", n, len(got))
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkCandidates(b *testing.B) {
	for _, n := range []int{100, scanAlone, scanAlone + 1, 10_000} {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			ring, scratch := sharingRing(b, n), NewMACScratch()
			msg, hint := make([]byte, 48), make([]byte, HintLen)
			b.ReportAllocs()
			for b.Loop() {
				ring.Candidates(scratch, msg, hint, nil)
			}
		})
	}
}
