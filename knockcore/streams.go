// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import "sync"

// streams are the admitted TCP streams: grants of connection scope and how to
// end them. The zero value is ready.
type streams struct {
	mu   sync.Mutex
	live map[GrantID]stream
}

type stream struct {
	grant *Grant
	cut   func()
}

// Track keeps an admitted stream on the books until release is called: cut is
// called, at most once, if its grant is revoked; at once if the configuration
// that runs by now does not allow it any more.
func (s *State) Track(g *Grant, cut func()) (release func()) {
	s.streams.mu.Lock()
	if s.streams.live == nil {
		s.streams.live = make(map[GrantID]stream)
	}
	s.streams.live[g.ID] = stream{g, cut}
	s.streams.mu.Unlock()
	if !s.allowed(g) {
		s.streams.cut(g.ID)
	}
	return func() {
		s.streams.mu.Lock()
		defer s.streams.mu.Unlock()
		delete(s.streams.live, g.ID)
	}
}

func (s *streams) list(f func(*Grant) bool) []*Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*Grant
	for _, st := range s.live {
		if f == nil || f(st.grant) {
			found = append(found, st.grant)
		}
	}
	return found
}

func (s *streams) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

func (s *streams) cut(id GrantID) *Grant {
	s.mu.Lock()
	st, ok := s.live[id]
	delete(s.live, id)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	st.cut()
	return st.grant
}
