// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Engine ends flows. It is safe for concurrent use.
type Engine struct {
	cfg  Config
	wake chan struct{}
	done chan struct{}

	mu     sync.Mutex
	asked  []request
	since  time.Time // of the oldest of asked
	closed bool
}

// New starts an engine; Close ends it.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go e.run()
	return e
}

// Cut implements knockcore.Cutter.
func (e *Engine) Cut(prefix netip.Prefix, service *knockcore.Service) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if len(e.asked) == 0 {
		e.since = time.Now()
	}
	e.asked = append(e.asked, request{prefix, service})
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Close ends the engine after what was asked for is done.
func (e *Engine) Close() {
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if !closed {
		close(e.wake)
	}
	<-e.done
}

func (e *Engine) run() {
	defer close(e.done)
	for range e.wake {
		e.mu.Lock()
		asked, since := e.asked, e.since
		e.asked = nil
		e.mu.Unlock()
		if len(asked) == 0 {
			continue
		}
		result := e.look(asked)
		result.Took = time.Since(since)
		if e.cfg.Done != nil {
			e.cfg.Done(result)
		}
	}
}

// look ends what the requests are about. Sockets go before the entries: the reset
// that a closed socket sends needs its entry to find back through NAT.
func (e *Engine) look(asked []request) (r Result) {
	flows, natted, ctErr := e.conntrack(asked)
	var sockErr error
	r.Sockets, sockErr = e.sockets(asked, natted)
	var delErr error
	r.Entries, delErr = e.forget(flows)
	r.Err = errors.Join(ctErr, sockErr, delErr)
	return r
}

// wanted returns the request that is about the flow, nil if none is or somebody
// holds it.
func (e *Engine) wanted(asked []request, proto knockcore.Protocol, remote netip.AddrPort, port uint16) *request {
	for i := range asked {
		if r := &asked[i]; r.wants(proto, remote.Addr(), port) && !e.cfg.Holds(r.service.Name, remote) {
			return r
		}
	}
	return nil
}

// Missing says what this process cannot do, as errors that wrap ErrConntrack and
// ErrSockets; nil if it can do all. netns is as in Config.
func Missing(netns int) error { return errors.Join(probeConntrack(netns), probeSockets(netns)) }
