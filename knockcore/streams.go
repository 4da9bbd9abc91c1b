// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"net/netip"
	"sync"
)

// streams are the admitted TCP streams: grants of connection scope and how to
// end them. The zero value is ready.
type streams struct {
	mu   sync.Mutex
	live map[GrantID]stream
	// ends counts the streams of a service by their other end.
	ends map[streamEnd]int
}

type stream struct {
	grant *Grant
	end   streamEnd
	cut   func()
}

type streamEnd struct {
	service string
	remote  netip.AddrPort
}

// Track keeps an admitted stream, whose other end is remote, on the books until
// release is called: cut is called, at most once, if its grant is revoked; at once
// if the configuration that runs by now does not allow it any more.
func (s *State) Track(g *Grant, remote netip.AddrPort, cut func()) (release func()) {
	end := streamEnd{g.Service, netip.AddrPortFrom(plain(remote.Addr()), remote.Port())}
	s.streams.mu.Lock()
	if s.streams.live == nil {
		s.streams.live = make(map[GrantID]stream)
		s.streams.ends = make(map[streamEnd]int)
	}
	s.streams.live[g.ID] = stream{g, end, cut}
	s.streams.ends[end]++
	s.streams.mu.Unlock()
	if !s.allowed(g) {
		s.streams.cut(g.ID)
	}
	return func() {
		s.streams.mu.Lock()
		defer s.streams.mu.Unlock()
		s.streams.remove(g.ID)
	}
}

// remove takes a stream off the books. The caller holds the lock.
func (s *streams) remove(id GrantID) (st stream, ok bool) {
	if st, ok = s.live[id]; ok {
		delete(s.live, id)
		if s.ends[st.end]--; s.ends[st.end] == 0 {
			delete(s.ends, st.end)
		}
	}
	return st, ok
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

// has reports whether a stream of the service with that other end is on the books.
func (s *streams) has(service string, remote netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[streamEnd{service, remote}] > 0
}

func (s *streams) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

func (s *streams) cut(id GrantID) *Grant {
	s.mu.Lock()
	st, ok := s.remove(id)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	st.cut()
	return st.grant
}
