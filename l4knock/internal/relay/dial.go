// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// ErrNoUpstreams is Dial's answer to an empty list.
var ErrNoUpstreams = errors.New("no upstreams")

// Dial tries the upstreams in order, each for DialTimeout, and returns the first
// connection along with its upstream. If none answers, the error joins those of
// all that were tried. The end of ctx ends it at once.
func Dial(ctx context.Context, opts *Options) (net.Conn, Upstream, error) {
	if len(opts.Upstreams) == 0 {
		return nil, Upstream{}, ErrNoUpstreams
	}
	dialer := net.Dialer{Timeout: opts.DialTimeout}
	if dialer.Timeout <= 0 {
		dialer.Timeout = DefaultDialTimeout
	}
	errs := make([]error, 0, len(opts.Upstreams))
	for _, u := range opts.Upstreams {
		conn, err := dialer.DialContext(ctx, u.network(), u.Address)
		if err == nil {
			return conn, u, nil
		}
		errs = append(errs, fmt.Errorf("upstream %s: %w", u, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, Upstream{}, errors.Join(errs...)
}
