// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"encoding/json"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// auditLine is what the audit log says of a grant: after the store has it.
type auditLine struct {
	Logger, Level, Msg string
	TS, Expires        float64
	Grant              string
	Client, Service    string
	Method, Scope      string
	Source             netip.Addr
	Prefix             netip.Prefix
}

func (l *auditLine) ends() time.Time { return seconds(l.Expires) }

func (l *auditLine) window() string { return l.Service + " " + l.Prefix.Addr().String() }

// key tells grants apart. A knock takes the place of the client's earlier one for the
// same window, but for knocks that a frame must follow: each has a session.
func (l *auditLine) key() string {
	if l.Scope == "session" {
		return l.Grant
	}
	return l.window()
}

func seconds(s float64) time.Time {
	whole, rest := math.Modf(s)
	return time.Unix(int64(whole), int64(rest*1e9))
}

// readLog reads the log since the last time and keeps what was granted.
func (s *soak) readLog(when string) (lines []auditLine) {
	s.Helper()
	if s.life.process != s.caddy {
		if s.life.process != nil {
			lines = s.readLines(when, s.life.process.Log.String())
		}
		s.life = life{process: s.caddy}
	}
	lines = append(lines, s.readLines(when, s.caddy.Log.String())...)
	for _, l := range lines {
		if l.Logger != "knock.audit" {
			continue
		}
		switch l.Msg {
		case "granted":
			if l.Scope == "connection" {
				s.count.streams++
				continue
			}
			s.count.granted++
			s.granted[l.key()] = l
		case "expired":
			if early := l.ends().Sub(seconds(l.TS)); early > 10*time.Millisecond {
				s.Errorf("%s: a grant expired %v early: %+v", when, early, l)
			}
		case "revoked", "banned":
			s.Errorf("%s: %+v", when, l)
		}
	}
	return lines
}

func (s *soak) readLines(when, log string) (lines []auditLine) {
	s.Helper()
	all := strings.SplitAfter(log, "\n")
	if n := len(all); !strings.HasSuffix(all[n-1], "\n") {
		all = all[:n-1]
	}
	for _, text := range all[s.life.lines:] {
		var l auditLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			if strings.Contains(text, "panic") || strings.Contains(text, "fatal error") || strings.Contains(text, "DATA RACE") {
				s.Errorf("%s: Caddy said %s", when, text)
			}
			continue
		}
		if l.Level != "info" && l.Level != "warn" && !slices.Contains(mayFail, l.Logger) {
			s.Errorf("%s: Caddy said %s", when, text)
		}
		lines = append(lines, l)
	}
	s.life.lines = len(all)
	return lines
}

// mayFail are the loggers that tell of bad configurations, a full disk, and
// strangers who hang up.
var mayFail = []string{"admin.api", "knock.stores.file", "layer4.handlers.proxy"}
