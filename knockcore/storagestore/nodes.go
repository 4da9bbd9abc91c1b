// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Node is a Caddy that shares the storage.
type Node struct {
	// Name is what its configuration calls it; two nodes must not have the same.
	Name string
	// Own says that it is this one.
	Own bool
	// Seen is when it last said that it lives, by its clock.
	Seen time.Time
	// Items is how many grants and bans it knew.
	Items int
}

// CheckNode reports what is wrong with a node's name.
func CheckNode(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	if name == "" || len(name) > maxName/2 || strings.Trim(name, letters) != "" {
		return fmt.Errorf("the node's name %q is not made of letters, digits and -._", name)
	}
	return nil
}

const (
	// Beat is how often a node says that it lives.
	Beat = 30 * time.Second
	// Lost is after what time without a word a node is not shown any more.
	Lost = 10 * time.Minute
)

// greet says that this node lives, and reads which others do.
func (s *Shared) greet(ctx context.Context) error {
	now := time.Now()
	s.mu.Lock()
	due, items, former := now.Sub(s.beaten) >= Beat, len(s.names), s.beat
	s.mu.Unlock()
	if !due {
		return nil
	}
	key := path.Join(root, nodes, fmt.Sprintf("%s.%d.%s", s.opts.Node, items, newStamp(now)))
	err := s.do(ctx, "save", func(ctx context.Context, storage Storage) error { return storage.Store(ctx, key, nil) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.beat, s.beaten = key, now
	s.mu.Unlock()
	if former == "" {
		return nil
	}
	return s.erase(ctx, former)
}

// count reads which nodes live. Those that are lost, and what former lives of this
// one said, are deleted.
func (s *Store) count(listing map[string]listed) {
	now := time.Now()
	byName := make(map[string]Node)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.twin = false
	for key, l := range listing {
		if l.folder != nodes {
			continue
		}
		dot := strings.LastIndexByte(l.name, '.')
		items, err := strconv.Atoi(l.name[dot+1:])
		n := Node{Name: l.name[:max(0, dot)], Seen: l.written, Items: items}
		n.Own = n.Name == s.opts.Node
		own, _ := parseKey(s.beat)
		if err != nil || now.Sub(n.Seen) > Lost || n.Own && n.Seen.Before(own.written) {
			s.doomed[key] = nil
			continue
		}
		s.twin = s.twin || n.Own && s.beat != "" && key != s.beat
		if n.Seen.After(byName[n.Name].Seen) {
			byName[n.Name] = n
		}
	}
	s.nodes = s.nodes[:0:0]
	for _, n := range byName {
		s.nodes = append(s.nodes, n)
	}
	slices.SortFunc(s.nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
}
