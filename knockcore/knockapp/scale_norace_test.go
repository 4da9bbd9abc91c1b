// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package knockapp_test

// testScale makes large tests smaller where they are slow.
const testScale = 1
