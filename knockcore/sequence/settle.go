// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import "slices"

// settleOneTime marks the one-time sequences among matches[from:] as used and
// moves their doors on. A match that another packet came before, or that cannot
// be marked, is taken out: what remains may be acted upon.
func (m *Matcher) settleOneTime(matches []Match, from int) []Match {
	m.settle.Lock()
	defer m.settle.Unlock()
	kept := matches[:from]
	for _, match := range matches[from:] {
		if match.door.pub.OneTime == nil || m.spend(&match) {
			kept = append(kept, match)
		}
	}
	clear(matches[len(kept):])
	return kept
}

func (m *Matcher) spend(match *Match) bool {
	d, ix := match.door, m.index.Load()
	if ix.doors[d.id-1] != d {
		return false
	}
	file := d.pub.OneTime
	err := file.Use(d.raw)
	doors := slices.Clone(ix.doors)
	doors[d.id-1] = compile(d.pub, d.id, d.version+1)
	m.index.Store(newIndex(doors))
	if m.config.Observe != nil {
		event := Event{Kind: EventOneTimeFailed, Door: d.pub, Source: match.Source, Time: match.Time, Err: err}
		if err != nil {
			m.config.Observe(event)
		}
		if file.Remaining() == 0 {
			event.Kind, event.Err = EventExhausted, nil
			m.config.Observe(event)
		}
	}
	return err == nil
}
