// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// List returns the bans that are not over, those that end last first.
func (b *Bans) List(now time.Time) []Ban {
	b.mu.RLock()
	defer b.mu.RUnlock()
	list := make([]Ban, 0, len(b.bans))
	for _, ban := range b.bans {
		if !ban.Over(now) {
			list = append(list, ban)
		}
	}
	slices.SortFunc(list, func(x, y Ban) int {
		return cmp.Or(y.Until.Compare(x.Until), x.Prefix.Compare(y.Prefix))
	})
	return list
}

// Lift ends the bans of everything in the prefix and of everything that the
// prefix is in, and forgets them. It returns how many there were, those that
// were over but not forgotten included.
func (b *Bans) Lift(prefix netip.Prefix) int {
	if prefix = NormalPrefix(prefix); !prefix.IsValid() {
		return 0
	}
	var lifted []netip.Prefix
	b.mu.Lock()
	for p := range b.bans {
		if p.Overlaps(prefix) {
			b.drop(p)
			lifted = append(lifted, p)
		}
	}
	b.mu.Unlock()
	b.keep(lifted...)
	return len(lifted)
}

// Restore brings back the bans that the store kept. Those that could not be made
// now are deleted.
func (b *Bans) Restore(ctx context.Context) error {
	if _, shared := b.cfg.Store.(Shared); shared || b.cfg.Store == nil {
		return nil // a shared store tells of its bans by itself
	}
	bans, err := b.cfg.Store.Bans(ctx)
	if err != nil {
		return fmt.Errorf("reading kept bans: %w", err)
	}
	var over []netip.Prefix
	b.mu.Lock()
	for _, ban := range bans {
		p := ban.Prefix
		_, known := b.bans[p]
		if known {
			continue
		}
		if !p.IsValid() || b.prefix(p.Addr()) != p || b.exempt(p.Addr()) || len(b.bans) >= b.cfg.Capacity {
			over = append(over, p)
			continue
		}
		b.bans[p] = ban
		b.len.Add(1)
	}
	b.mu.Unlock()
	b.keep(over...)
	return nil
}

// adopt takes in a ban that another node made, in place of one of the same prefix.
// One that could not be made here is left out.
func (b *Bans) adopt(ban Ban) {
	p := ban.Prefix
	if !p.IsValid() || b.prefix(p.Addr()) != p || b.exempt(p.Addr()) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.bans[p]; !known {
		if len(b.bans) >= b.cfg.Capacity {
			b.giveWay()
		}
		b.len.Add(1)
	}
	b.bans[p] = ban
}

// forget drops the ban of a prefix that another node lifted.
func (b *Bans) forget(p netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.bans[p]; known {
		b.drop(p)
	}
}

// giveWay drops the ban of a few that ends first; the map picks which few.
func (b *Bans) giveWay() netip.Prefix {
	var victim Ban
	n := 0
	for _, ban := range b.bans {
		if n == 0 || ban.Until.Before(victim.Until) {
			victim = ban
		}
		if n++; n == bucketWays {
			break
		}
	}
	b.drop(victim.Prefix)
	return victim.Prefix
}

func (b *Bans) drop(p netip.Prefix) {
	delete(b.bans, p)
	b.len.Add(-1)
}

// keep tells the store what became of bans. Whoever comes last tells what is
// true by then.
func (b *Bans) keep(prefixes ...netip.Prefix) {
	if b.cfg.Store == nil || len(prefixes) == 0 {
		return
	}
	b.storeMu.Lock()
	defer b.storeMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, p := range prefixes {
		// The store reports its health by itself.
		if ban, ok := b.find(p); ok {
			_ = b.cfg.Store.SaveBan(ctx, ban)
		} else {
			_ = b.cfg.Store.DeleteBan(ctx, p)
		}
	}
}
