// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import "sync"

// together calls f(0) to f(n-1) at the same time and waits for all.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := 1; i < n; i++ {
		all.Go(func() { f(i) })
	}
	if n > 0 {
		f(0)
	}
	all.Wait()
}
