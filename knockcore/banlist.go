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
	// The wall may know of one that a configuration made which was about to end.
	b.tell(append(lifted, b.prefix(prefix.Addr()))...)
	return len(lifted)
}

// Restore brings back the bans that the store and the wall kept. Those that could
// not be made now are deleted.
func (b *Bans) Restore(ctx context.Context) error {
	// A shared store tells of its bans by itself.
	if _, shared := b.cfg.Store.(Shared); !shared && b.cfg.Store != nil {
		bans, err := b.cfg.Store.Bans(ctx)
		if err != nil {
			return fmt.Errorf("reading kept bans: %w", err)
		}
		b.tell(b.enter(bans)...)
	}
	if b.cfg.Wall == nil {
		return nil
	}
	bans, err := b.cfg.Wall.Banned(ctx)
	if err != nil {
		return fmt.Errorf("reading who is banned: %w", err)
	}
	for i := range bans {
		bans[i].Made = time.Now() // the wall knows the end only
	}
	if err := b.cfg.Wall.Lift(ctx, b.enter(bans)...); err != nil {
		return fmt.Errorf("lifting bans: %w", err)
	}
	if err := b.cfg.Wall.Ban(ctx, b.List(time.Now())...); err != nil {
		return fmt.Errorf("banning again: %w", err)
	}
	return nil
}

// enter takes in bans that were made before, and returns the prefixes of those that
// could not be made now.
func (b *Bans) enter(bans []Ban) (others []netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ban := range bans {
		p := ban.Prefix
		if _, known := b.bans[p]; known {
			continue
		}
		if !b.mayBan(p) || len(b.bans) >= b.cfg.Capacity {
			others = append(others, p)
			continue
		}
		b.bans[p] = ban
		b.len.Add(1)
	}
	return others
}

// mayBan reports whether this is a prefix that is banned here.
func (b *Bans) mayBan(p netip.Prefix) bool {
	return p.IsValid() && b.prefix(p.Addr()) == p && !b.exempt(p.Addr())
}

// adopt takes in a ban that another node made, in place of one of the same prefix.
// One that could not be made here is left out.
func (b *Bans) adopt(ban Ban) {
	p := ban.Prefix
	if !b.mayBan(p) {
		return
	}
	changed := []netip.Prefix{p}
	b.mu.Lock()
	if _, known := b.bans[p]; !known {
		if len(b.bans) >= b.cfg.Capacity {
			changed = append(changed, b.giveWay())
		}
		b.len.Add(1)
	}
	b.bans[p] = ban
	b.mu.Unlock()
	b.tellWall(changed...)
}

// forget drops the ban of a prefix that another node lifted.
func (b *Bans) forget(p netip.Prefix) {
	b.mu.Lock()
	if _, known := b.bans[p]; known {
		b.drop(p)
	}
	b.mu.Unlock()
	b.tellWall(p)
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

// tell tells the wall and the store what became of bans. Whoever comes last tells
// what is true by then.
func (b *Bans) tell(prefixes ...netip.Prefix) {
	b.tellWall(prefixes...)
	if b.cfg.Store == nil || len(prefixes) == 0 {
		return
	}
	b.tellMu.Lock()
	defer b.tellMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), tellTimeout)
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

// tellTimeout bounds what changing a ban may cost at the wall, and at the store.
const tellTimeout = time.Second

// tellWall tells the wall what became of bans.
func (b *Bans) tellWall(prefixes ...netip.Prefix) {
	if b.cfg.Wall == nil {
		return
	}
	b.tellMu.Lock()
	defer b.tellMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), tellTimeout)
	defer cancel()
	var bans []Ban
	var lifted []netip.Prefix
	for _, p := range prefixes {
		if ban, ok := b.find(p); ok {
			bans = append(bans, ban)
		} else {
			lifted = append(lifted, p)
		}
	}
	// A wall that fails says so by itself; the bans hold where we look at them.
	_ = b.cfg.Wall.Lift(ctx, lifted...)
	_ = b.cfg.Wall.Ban(ctx, bans...)
}
