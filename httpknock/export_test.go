// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import "time"

// SetBodyTimeout changes how long a body may take, and returns what undoes it.
func SetBodyTimeout(d time.Duration) func() {
	former := bodyTimeout
	bodyTimeout = d
	return func() { bodyTimeout = former }
}
