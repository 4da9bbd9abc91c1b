// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
)

// commentMark begins the comment of a window's rule; the expiry follows, in Unix
// milliseconds.
const commentMark = "knock-until-"

// latest is when a window may end: iptables can't name a later day.
var latest = time.Date(2038, 1, 19, 0, 0, 0, 0, time.UTC)

// windowRule lets the prefix in until expires. With timed the kernel ends it, at
// the first full second at or after expires: xt_time counts whole seconds, the
// last one included.
func windowRule(p netip.Prefix, expires time.Time, timed bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-s %s", p)
	if timed {
		stop := kernelEnd(expires).Add(-time.Second)
		fmt.Fprintf(&b, " -m time --datestop %s", stop.UTC().Format("2006-01-02T15:04:05"))
	}
	fmt.Fprintf(&b, " -m comment --comment %s%d -j ACCEPT", commentMark, expires.UnixMilli())
	return b.String()
}

// kernelEnd is when the kernel ends a timed window.
func kernelEnd(expires time.Time) time.Time {
	return expires.Add(time.Second - time.Nanosecond).Truncate(time.Second)
}

// parseWindowRule reads what windowRule wrote, whether timed or not.
func parseWindowRule(rule string) (p netip.Prefix, expires time.Time, ok bool) {
	words := strings.Fields(rule)
	for i, word := range words[:max(0, len(words)-1)] {
		var err error
		switch word {
		case "-s":
			p, err = netip.ParsePrefix(words[i+1])
		case "--comment":
			var ms int64
			text, found := strings.CutPrefix(words[i+1], commentMark)
			ms, err = strconv.ParseInt(text, 10, 64)
			if !found || ms <= 0 {
				return p, expires, false
			}
			expires = time.UnixMilli(ms).UTC()
		}
		if err != nil {
			return p, expires, false
		}
	}
	if !p.IsValid() || expires.IsZero() {
		return p, expires, false
	}
	return p, expires, rule == windowRule(p, expires, true) || rule == windowRule(p, expires, false)
}

// acceptsWindow reports whether a rule can keep the window.
func acceptsWindow(c engine.Change) error {
	if err := AcceptsPrefix(c.Prefix); err != nil {
		return err
	}
	if c.New.After(latest) {
		return fmt.Errorf("a window until %v: iptables can't time windows beyond %v: %w", c.New, latest.Format(time.DateOnly), engine.ErrUnsupported)
	}
	return nil
}
