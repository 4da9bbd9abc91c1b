// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"errors"
	"slices"
)

// Adopt takes over the attempts of another Matcher, as far as they are at doors
// that both have unchanged, so that a reload does not lose the knock that is
// just under way. It also reads the one-time files anew, since the other may
// have used sequences since this one was made; the error is theirs. Call it when
// the packets come here; old may still get the last of its own meanwhile.
func (m *Matcher) Adopt(old *Matcher) error {
	err := m.Refresh()
	was, is := old.index.Load(), m.index.Load()
	same := make([]*door, len(was.doors)+1) // by the old id
	taken := make([]bool, len(is.doors))
	for _, a := range was.doors {
		i := slices.IndexFunc(is.doors, func(b *door) bool { return !taken[b.id-1] && a.equal(b) })
		if i >= 0 {
			same[a.id], taken[i] = is.doors[i], true
		}
	}
	for set := range old.sets {
		mu := old.lock(set)
		mu.Lock()
		for r := set * ways; r < (set+1)*ways; r++ {
			if old.records[r].used {
				m.adopt(old, r, was, same)
			}
		}
		mu.Unlock()
	}
	return err
}

func (m *Matcher) adopt(old *Matcher, r int, was *index, same []*door) {
	rec := old.records[r]
	set := m.setOf(&rec.addr)
	mu := m.lock(set)
	mu.Lock()
	defer mu.Unlock()
	to := m.find(set, &rec.addr)
	for s, st := range old.statesOf(r) {
		if st.live == 0 || st.version != was.doors[st.door-1].version || same[st.door] == nil {
			continue
		}
		if to < 0 {
			to = m.take(set, &rec.addr, rec.last)
			m.records[to].last = rec.last
			if len(old.ringOf(r)) <= len(m.ringOf(to)) {
				m.records[to].next = uint8(copy(m.ringOf(to), old.ringOf(r)) % m.perRing)
			}
		}
		d := same[st.door]
		if m.stateFor(d, to, false) >= 0 {
			continue // begun anew here
		}
		i := m.stateFor(d, to, true)
		st.door, st.version = d.id, d.version
		m.statesOf(to)[i] = st
		copy(m.stagesOf(to, i), old.stagesOf(r, s))
		m.records[to].until = max(m.records[to].until, rec.until)
		m.records[to].top = max(m.records[to].top, uint8(rank(st.live)))
	}
}

// equal reports whether two doors are the same but for what they open.
func (d *door) equal(other *door) bool {
	return d.pub.Name == other.pub.Name && d.flags == other.flags && d.strict == other.strict &&
		d.within == other.within && d.idle == other.idle &&
		slices.Equal(d.steps, other.steps) && slices.Equal(d.targets, other.targets)
}

// Refresh reads the one-time files anew and moves doors on whose current
// sequence is a different one.
func (m *Matcher) Refresh() error {
	m.settle.Lock()
	defer m.settle.Unlock()
	ix := m.index.Load()
	doors := slices.Clone(ix.doors)
	var errs []error
	for i, d := range doors {
		if d.pub.OneTime == nil {
			continue
		}
		if err := d.pub.OneTime.Reload(); err != nil {
			errs = append(errs, err)
		}
		if !slices.Equal(d.raw, d.pub.sequence()) {
			doors[i] = compile(d.pub, d.id, d.version+1)
		}
	}
	m.index.Store(newIndex(doors))
	return errors.Join(errs...)
}
