// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"context"
	"fmt"
	"net"

	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/l4knock/internal/relay"
)

// coverDial is a connection to the cover that is being made, for a stream whose
// nature is not known yet.
type coverDial struct {
	cancel context.CancelFunc
	result chan coverResult // one value
}

type coverResult struct {
	conn net.Conn
	err  error
}

// dialCover begins to dial the cover.
func (h *Handler) dialCover() *coverDial {
	upstream, err := parseUpstream(h.Cover)
	ctx, cancel := context.WithCancel(context.Background())
	c := &coverDial{cancel: cancel, result: make(chan coverResult, 1)}
	if err != nil { // it was checked when the configuration was loaded
		c.result <- coverResult{err: err}
		return c
	}
	go func() {
		conn, _, err := relay.Dial(ctx, &relay.Options{Upstreams: []relay.Upstream{upstream}})
		c.result <- coverResult{conn, err}
	}()
	return c
}

// relay connects a stranger with the cover.
func (c *coverDial) relay(cx *layer4.Connection) error {
	result := <-c.result
	c.result <- coverResult{} // for discard
	if result.err != nil {
		return fmt.Errorf("connecting to the cover: %w", result.err)
	}
	conn, head := bare(cx)
	relay.Run(context.Background(), conn, head, result.conn, new(relay.Options))
	return nil
}

// discard ends a dial that nobody needs; a nil dial too. It may be called more
// than once.
func (c *coverDial) discard() {
	if c == nil {
		return
	}
	c.cancel()
	select {
	case result := <-c.result:
		if result.conn != nil {
			_ = result.conn.Close()
		}
		c.result <- coverResult{}
	default:
		// Still under way: whoever comes first to the result closes it.
		go func() {
			if result := <-c.result; result.conn != nil {
				_ = result.conn.Close()
			}
			c.result <- coverResult{}
		}()
	}
}
