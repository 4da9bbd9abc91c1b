// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience is what a store or a firewall may ask of the context that it gets.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := newPatience(t.Context())
		if at, ok := p.Deadline(); !ok || at.Sub(begin) != admitTimeout {
			t.Errorf("ends after %v, %v", at.Sub(begin), ok)
		}
		child, cancel := context.WithCancel(p)
		defer cancel()
		<-child.Done()
		if took := time.Since(begin); took != admitTimeout || !errors.Is(p.Err(), context.DeadlineExceeded) || context.Cause(child) != context.DeadlineExceeded {
			t.Errorf("ended after %v with %v, %v", took, p.Err(), context.Cause(child))
		}
		p.end()

		parent, stop := context.WithCancelCause(t.Context())
		p = newPatience(parent)
		cause := errors.New("the queue is closed")
		stop(cause)
		<-p.Done()
		if context.Cause(p) != cause {
			t.Errorf("ended with %v", context.Cause(p))
		}
		p.end()

		for _, asked := range []bool{false, true} {
			p = newPatience(t.Context())
			if asked && p.Err() != nil {
				t.Error(p.Err())
			}
			p.end()
			p.end()
			if <-p.Done(); p.Err() == nil {
				t.Errorf("asked before: %v: it goes on after its end", asked)
			}
		}
	})
}
