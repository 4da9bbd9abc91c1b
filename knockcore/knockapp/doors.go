// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// doorFilter is what the doors of this configuration have to see of passive
// sources that accept the method port-sequence. It is asked while loading, when
// the services are known.
func (a *App) doorFilter() source.Filter { return nil }

// doorPackets is what such sources show their packets; nil if there are no doors.
func (a *App) doorPackets(*knockcore.Gatekeeper) func(ctx context.Context, p *source.Packet) {
	return nil
}
