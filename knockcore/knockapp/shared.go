// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// lives holds the live state: spent nonces, grants, admitted streams. A reload,
// also one that fails, finds it as it was, because each configuration that has
// started holds a reference until it has stopped, and the new one starts before
// the old one stops. The key is the store's identity.
var lives = caddy.NewUsagePool()

// live is the state of one store.
type live struct {
	key      string
	state    *knockcore.State
	restored sync.Once

	mu       sync.Mutex
	sweepers map[chan struct{}]struct{}
}

// Destruct closes the store when the last configuration that used it has ended.
func (l *live) Destruct() error { return l.state.Store.Close() }

func acquireLive(store StoreConverter, window time.Duration, maxGrants int) (*live, error) {
	key, open := store.KnockStore(max(window, greatestWindow))
	value, loaded, err := lives.LoadOrNew(key, func() (caddy.Destructor, error) {
		opened, err := open()
		if err != nil {
			return nil, fmt.Errorf("opening the store: %w", err)
		}
		return &live{key: key, state: knockcore.NewState(opened, maxGrants), sweepers: make(map[chan struct{}]struct{})}, nil
	})
	if err != nil {
		return nil, err
	}
	l := value.(*live)
	if r, ok := store.(storeReconfigurer); ok && loaded {
		r.Reconfigure(l.state.Store)
	}
	return l, nil
}

func releaseLive(l *live) error {
	_, err := lives.Delete(l.key)
	return err
}

// restore brings back, once in the life of the store, what it kept.
func (l *live) restore(ctx context.Context, gate *knockcore.Gatekeeper) (err error) {
	l.restored.Do(func() { _, err = gate.Restore(ctx) })
	return err
}

// sweeper registers a configuration's sweeper: the channel tells it to look at
// the next expiry again.
func (l *live) sweeper() (woken <-chan struct{}, done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan struct{}, 1)
	l.sweepers[c] = struct{}{}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.sweepers, c)
	}
}

// wake wakes the sweepers: during a reload there are two, and a grant of the old
// configuration matters to the new one.
func (l *live) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.sweepers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

var pendings struct {
	sync.Mutex
	bySize map[int]*knockserver.Pending
}

// sharedPending is the process-wide bound of this size: streams outlive
// configurations, so their bound does too.
func sharedPending(limit int) *knockserver.Pending {
	pendings.Lock()
	defer pendings.Unlock()
	p := pendings.bySize[limit]
	if p == nil {
		p = knockserver.NewPending(limit)
		if pendings.bySize == nil {
			pendings.bySize = make(map[int]*knockserver.Pending)
		}
		pendings.bySize[limit] = p
	}
	return p
}

// localAddrs knows this host's own addresses, looked up again when they are
// older than a few seconds.
type localAddrs struct {
	mu    sync.Mutex
	until time.Time
	addrs map[netip.Addr]struct{}
}

const localAddrsAge = 5 * time.Second

func newLocalAddrs() *localAddrs { return new(localAddrs) }

// has reports whether the address is loopback or this host's own.
func (l *localAddrs) has(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.until) {
		list, err := net.InterfaceAddrs()
		if err == nil {
			l.addrs = make(map[netip.Addr]struct{}, len(list))
			for _, a := range list {
				if ipNet, ok := a.(*net.IPNet); ok {
					if ip, ok := netip.AddrFromSlice(ipNet.IP); ok {
						l.addrs[ip.Unmap()] = struct{}{}
					}
				}
			}
			l.until = now.Add(localAddrsAge)
		}
	}
	_, own := l.addrs[addr]
	return own
}
