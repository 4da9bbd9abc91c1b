// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"sync"
	"sync/atomic"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Resolver says who may knock. [Clients] is one; your own may ask a file or a
// database.
type Resolver interface {
	// Keyring returns the clients as they are now. It is called for every
	// connection, from many goroutines: it must be quick, and return the same
	// pointer as long as nothing changes.
	Keyring() *knockcore.Keyring
}

// Watcher is a Resolver that says when its clients change, so that those removed
// lose their connections at once, not when the next one comes.
type Watcher interface {
	Resolver
	// Watch makes changed be called after each change, until stop is called.
	Watch(changed func()) (stop func())
}

// Clients is a list of clients that can be replaced while servers use it. It is
// safe for concurrent use.
type Clients struct {
	ring atomic.Pointer[knockcore.Keyring]

	mu       sync.Mutex
	last     int
	watchers map[int]func()
}

// NewClients checks the clients and makes a list of them.
func NewClients(clients ...*knockcore.Client) (*Clients, error) {
	c := &Clients{watchers: make(map[int]func())}
	return c, c.Set(clients...)
}

// Set replaces the clients. Those that are removed lose their connections. On an
// error nothing has changed. A Client must not be changed after it was given to
// Set: make a new one.
func (c *Clients) Set(clients ...*knockcore.Client) error {
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring.Store(ring)
	for _, changed := range c.watchers {
		changed()
	}
	return nil
}

// Keyring implements Resolver.
func (c *Clients) Keyring() *knockcore.Keyring { return c.ring.Load() }

// Watch implements Watcher. changed must not call c.
func (c *Clients) Watch(changed func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	id := c.last
	c.watchers[id] = changed
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, id)
	}
}

// forService makes the keyring of one service: whoever may reach it, and nothing
// else. The name "" stands for a program that has one service only, which all
// clients may reach.
func forService(ring *knockcore.Keyring, service string) (*knockcore.Keyring, error) {
	if ring == nil {
		return new(knockcore.Keyring), nil
	}
	clients := ring.Clients()
	for i, c := range clients {
		only := *c
		only.Services, only.AllServices = nil, service == "" || c.MayReach(service)
		clients[i] = &only
	}
	return knockcore.NewKeyring(clients)
}

// Interface guards
var _ Watcher = (*Clients)(nil)
