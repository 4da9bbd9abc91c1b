// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore_test

import (
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
)

func TestMemoryStore(t *testing.T) {
	coretest.StoreSuite(t, func(*testing.T, string) knockcore.Store { return knockcore.NewMemoryStore(2048) }, false)
}
