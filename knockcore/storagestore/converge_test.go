// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// TestConverges lets three nodes grant, renew and revoke at random, with a storage
// that fails, vanishes and comes back: in the end all nodes have the same grants and
// windows, and the storage no others.
func TestConverges(t *testing.T) {
	for seed := range uint64(100) {
		test(t, func(t *testing.T, storage *folder, nodes []*testNode) {
			random := rand.New(rand.NewPCG(seed, 0))
			prefix := func() string { return fmt.Sprintf("192.0.2.%d/32", random.IntN(5)) }
			away := map[string][]byte(nil)
			for range 60 {
				n := nodes[random.IntN(len(nodes))]
				switch random.IntN(10) {
				case 0, 1, 2, 3:
					n.grant(prefix(), time.Duration(1+random.IntN(20))*time.Hour)
				case 4, 5: // what can't be told is tried again
					_ = n.revokeOne(prefix())
				case 6:
					_, _ = n.RevokeAll(t.Context(), knockcore.Selection{Client: "alice"}, "test")
				case 7:
					storage.set(func() {
						if away == nil && storage.fail == nil {
							storage.fail = errors.New("no such luck")
						} else {
							storage.fail = nil
						}
					})
				case 8:
					storage.set(func() {
						if away == nil {
							away, storage.keys = storage.keys, make(map[string][]byte)
						} else {
							away, storage.keys = nil, away
						}
					})
				}
				time.Sleep(time.Duration(random.IntN(8000)) * time.Millisecond)
				synctest.Wait()
			}
			storage.set(func() {
				if storage.fail = nil; away != nil {
					storage.keys = away
				}
			})
			for range 4 {
				looks()
			}
			var all []string
			for i, n := range nodes {
				var list []string
				for _, g := range n.State().Grants(nil) {
					list = append(list, fmt.Sprint(g.ID, g.Prefix, g.Expires.Round(time.Second)))
					n.end(g.Prefix.String())
				}
				slices.Sort(list)
				if i == 0 {
					all = list
				}
				if !slices.Equal(list, all) || len(n.fw.open) != len(list) {
					t.Errorf("seed %d: %s has\n%q, %d windows;\n%s has\n%q", seed, n.name, list, len(n.fw.open), nodes[0].name, all)
				}
				if err := n.store.Health(); err != nil {
					t.Errorf("seed %d: %s: %v", seed, n.name, err)
				}
			}
			kept := make(map[string]bool) // nodes may have made one grant at the same time
			for key := range storage.copy() {
				if l, ok := parseKey(key); ok && l.folder == grants {
					kept[l.name] = true
				}
			}
			if len(kept) != len(all) {
				t.Errorf("seed %d: the storage keeps %d grants, the nodes have %d", seed, len(kept), len(all))
			}
		})
	}
}

// revokeOne revokes the grants for a prefix, one by one, without an order to others.
func (n *testNode) revokeOne(prefix string) (err error) {
	for _, g := range n.State().Grants(func(g *knockcore.Grant) bool { return g.Prefix.String() == prefix }) {
		_, revokeErr := n.Revoke(n.Context(), g.ID, "test")
		err = errors.Join(err, revokeErr)
	}
	return err
}
