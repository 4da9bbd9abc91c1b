// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"fmt"
	"time"
)

// gather takes the windows of all requests that wait, up to one that cannot be
// joined.
func (o *owner) gather(first *request) (batch []*request, next *request) {
	batch = append(batch, first)
	for n := len(first.windows); n < maxCommit; {
		select {
		case r := <-o.requests:
			if r.run != nil {
				return batch, r
			}
			batch = append(batch, r)
			n += len(r.windows)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// commit applies the requests, together if that works and else one by one, and
// answers each. It passes next on.
func (o *owner) commit(batch []*request, next *request) *request {
	all := map[key]time.Time{}
	var valid []*request
	for _, r := range batch {
		if !r.begin() {
			continue
		}
		changes, err := o.changes(r)
		if err != nil {
			r.done <- err
			continue
		}
		for k, expires := range changes { // the later request decides
			all[k] = expires
		}
		valid = append(valid, r)
	}
	err := o.apply(all)
	if err == nil || len(valid) == 1 {
		for _, r := range valid {
			r.done <- err
		}
		return next
	}
	for _, r := range valid {
		changes, err := o.changes(r)
		if err == nil {
			err = o.apply(changes)
		}
		r.done <- err
	}
	return next
}

// apply sends the changes in commits of a bounded size; if the table is gone it
// is repaired first.
func (o *owner) apply(changes map[key]time.Time) error {
	part := changes
	for len(changes) > 0 {
		if len(changes) > maxCommit {
			part = make(map[key]time.Time, maxCommit)
			for k, expires := range changes {
				if part[k] = expires; len(part) == maxCommit {
					break
				}
			}
		} else {
			part = changes
		}
		err := o.keeper.apply(part)
		if isAbsent(err) {
			if err = o.heal("the table is gone"); err == nil {
				err = o.keeper.apply(part)
			}
		}
		if err != nil {
			return fmt.Errorf("changing %d windows: %w", len(part), err)
		}
		if len(part) == len(changes) {
			return nil
		}
		for k := range part {
			delete(changes, k)
		}
	}
	return nil
}

// changes checks the windows of a request and brings them to their normal form.
func (o *owner) changes(r *request) (map[key]time.Time, error) {
	now := time.Now()
	m := make(map[key]time.Time, len(r.windows))
	for _, w := range r.windows {
		k, err := keyOf(w)
		if err != nil {
			return nil, err
		}
		switch {
		case r.close:
			w.Expires = time.Time{}
		case w.Expires.IsZero():
			return nil, fmt.Errorf("window of %v to service %s: no expiry", w.Prefix, w.Service)
		case !w.Expires.After(now):
			return nil, fmt.Errorf("window of %v to service %s: %w", w.Prefix, w.Service, ErrExpired)
		}
		if !o.names[w.Service] {
			if r.close {
				continue
			}
			return nil, fmt.Errorf("window of %v to service %s: %w", w.Prefix, w.Service, ErrUnknownService)
		}
		m[k] = w.Expires
	}
	return m, nil
}
