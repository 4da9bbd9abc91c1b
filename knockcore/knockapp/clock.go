// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// testClock names a file that holds the time, in Unix nanoseconds, by which
// knocks are judged: for tests that play recorded knocks to the real program. It
// is set while linking (-ldflags '-X …/knockapp.testClock=/path') and empty in
// every program that is not built for such a test; nothing else can set it.
var testClock string

// clock is the gatekeeper's clock: nil for the real one.
func clock() func() time.Time {
	if testClock == "" {
		return nil
	}
	return func() time.Time {
		text, err := os.ReadFile(testClock)
		if err != nil {
			return time.Time{}
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return time.Time{}
		}
		return time.Unix(0, ns)
	}
}
