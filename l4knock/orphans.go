// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"context"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/mholt/caddy-l4/layer4"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// closeOrphans has the layer4 app's listeners closed if it could not open all of
// them. Caddy stops the apps that have started, not the one that has failed to: what
// that one opened before would go on taking a part of the streams, for a
// configuration that never ran.
func closeOrphans(ctx caddy.Context, app *knockapp.App) {
	mod, err := ctx.AppIfConfigured("layer4") // the one that is provisioning this module
	if err != nil {
		return
	}
	l4, ok := mod.(*layer4.App)
	if !ok {
		return
	}
	app.AtEnd("layer4", func() {
		if cause := context.Cause(ctx); cause != nil && strings.Contains(cause.Error(), "layer4 app module: start:") {
			_ = l4.Stop()
		}
	})
}
