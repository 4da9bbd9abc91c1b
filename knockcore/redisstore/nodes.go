// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/valkey-io/valkey-go"
)

// Node is a member of the fleet.
type Node struct {
	// Name is what its configuration calls it; two nodes must not have the same.
	Name string
	// Own says that it is this one.
	Own bool
	// Seen is when it was last heard of, by this node's clock.
	Seen time.Time
	// Behind is how many changes it had not taken in yet, as of then.
	Behind uint64
	// Items is how many grants and bans it knew.
	Items int

	instance string
}

// nodeJSON is what a node tells of itself once a second.
type nodeJSON struct {
	Instance string `json:"i"`
	Last     uint64 `json:"v"`
	At       int64  `json:"t"` // the server's clock, as the node knows it; Unix ms
	Items    int    `json:"n"`
}

// Lost is after what time without a word a node is not shown any more.
const Lost = 10 * time.Minute

// self is what this node tells of itself.
func (s *Store) self() string {
	s.mu.Lock()
	items := len(s.items)
	s.mu.Unlock()
	b, _ := json.Marshal(nodeJSON{s.instance, s.last.Load(), s.serverNow(), items})
	return string(b)
}

// setNodes remembers what the nodes tell of themselves: names and JSON by turns.
// It returns those that were not heard of for long.
func (s *Store) setNodes(message valkey.ValkeyMessage, serverMS int64) (gone []string) {
	var texts []string
	if m, err := message.AsStrMap(); err == nil {
		for name, text := range m {
			texts = append(texts, name, text)
		}
	}
	head := s.head.Load()
	nodes := make([]Node, 0, len(texts)/2)
	for i := 0; i+1 < len(texts); i += 2 {
		var j nodeJSON
		if json.Unmarshal([]byte(texts[i+1]), &j) != nil || len(texts[i]) > maxName || len(j.Instance) > maxName {
			continue
		}
		n := Node{Name: texts[i], Own: texts[i] == s.opts.Node, Seen: s.fromServer(min(j.At, serverMS)), Items: j.Items, instance: j.Instance}
		if head > j.Last {
			n.Behind = head - j.Last
		}
		if time.Since(n.Seen) < Lost {
			nodes = append(nodes, n)
		} else {
			gone = append(gone, n.Name)
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = nodes
	return gone
}

// nodeName is the name of a node, by the instance that made a change.
func (s *Store) nodeName(instance string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.instance == instance {
			return n.Name
		}
	}
	return "another node"
}

// Stats are figures of a store.
type Stats struct {
	// Up says whether the server can be used.
	Up bool
	// Epoch began at Since; frames that could have been accepted before are
	// refused: those with the usual time window until ClosedUntil.
	Epoch              string
	Since, ClosedUntil time.Time
	// Items is how many grants and bans this node knows, Unsent how many of them,
	// and of spent nonces, the server has not been told of.
	Items, Unsent int
	// Behind is how many changes of others this node has not taken in yet, Delay
	// how old the last one was when it was.
	Behind uint64
	Delay  time.Duration
	Nodes  []Node
}

// Stats returns figures.
func (s *Store) Stats() Stats {
	st := Stats{Delay: time.Duration(s.delay.Load())}
	if head, last := s.head.Load(), s.last.Load(); head > last {
		st.Behind = head - last
	}
	if l := s.link.Load(); l != nil {
		st.Up, st.Epoch, st.Since, st.ClosedUntil = true, l.epoch, time.UnixMilli(l.base), s.closedUntil(l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Items, st.Unsent, st.Nodes = len(s.items), len(s.dirty)+len(s.unsent), slices.Clone(s.nodes)
	return st
}
