// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// eventRecord is something that happened, as Caddy's events and the stream of the
// admin API tell it. Nothing in it comes from the wire but addresses.
type eventRecord struct {
	seq uint64

	// Event is granted, refused, expired, revoked, banned or healed.
	Event   string             `json:"event"`
	Time    time.Time          `json:"time"`
	Client  string             `json:"client,omitempty"`
	Service string             `json:"service,omitempty"`
	Method  string             `json:"method,omitempty"`
	Scope   string             `json:"scope,omitempty"`
	Grant   *knockcore.GrantID `json:"grant,omitempty"`
	Prefix  *netip.Prefix      `json:"prefix,omitempty"`
	Source  *netip.Addr        `json:"source,omitempty"`
	Expires *time.Time         `json:"expires,omitempty"`
	Renewed bool               `json:"renewed,omitempty"`
	Reason  string             `json:"reason,omitempty"`
	// ClockAhead is by how many seconds the client's clock is ahead of ours, if that
	// is why.
	ClockAhead float64 `json:"clock_ahead_seconds,omitempty"`
	// Similar counts the refusals of this method and reason that are not told.
	Similar int `json:"similar,omitempty"`
	// By is who or what revoked.
	By string `json:"by,omitempty"`
	// Until is when a ban ends.
	Until *time.Time `json:"until,omitempty"`
	// Node is the node of a fleet where it happened, if it was another one.
	Node string `json:"node,omitempty"`
	// Firewall is which one was mended, Found what was wrong.
	Firewall string `json:"firewall,omitempty"`
	Found    string `json:"found,omitempty"`
	Windows  int    `json:"windows,omitempty"`
}

// record makes a record of an event, not of a refusal's sampling.
func record(e *knockcore.Event, now time.Time) eventRecord {
	r := eventRecord{Event: e.Kind.String(), Time: now.Round(0), Renewed: e.Renewed, By: e.By}
	if e.Method != knockcore.MethodNone {
		r.Method = e.Method.String()
	}
	if e.Source.IsValid() {
		r.Source = &e.Source
	}
	if g := e.Grant; g != nil {
		r.Client, r.Service, r.Scope, r.Grant, r.Prefix = g.Client, g.Service, g.Scope.String(), &g.ID, &g.Prefix
		if g.Scope != knockcore.ScopeConnection {
			expires := g.Expires.Round(0)
			r.Expires = &expires
		}
	}
	if !e.Until.IsZero() {
		until := e.Until.Round(0)
		r.Until = &until
	}
	if e.Err != nil {
		r.Reason = knockcore.ReasonOf(e.Err).String()
		var refusal *knockcore.Refusal
		if errors.As(e.Err, &refusal) {
			r.Client, r.ClockAhead = refusal.Client, refusal.Skew.Seconds()
		}
	}
	return r
}

// data is the record as the data of a Caddy event: texts only, so that each can
// be an argument of a command. What is unknown is an empty text.
func (r *eventRecord) data() map[string]any {
	d := map[string]any{
		"client": r.Client, "service": r.Service, "method": r.Method, "scope": r.Scope, "reason": r.Reason, "by": r.By,
		"firewall": r.Firewall, "found": r.Found, "time": r.Time.Format(time.RFC3339Nano),
		"renewed": strconv.FormatBool(r.Renewed), "similar": strconv.Itoa(r.Similar), "windows": strconv.Itoa(r.Windows),
		"grant": "", "prefix": "", "source": "", "expires": "", "until": "",
	}
	if r.Grant != nil {
		d["grant"] = r.Grant.String()
	}
	if r.Prefix != nil {
		d["prefix"] = r.Prefix.String()
	}
	if r.Source != nil {
		d["source"] = r.Source.String()
	}
	if r.Expires != nil {
		d["expires"] = r.Expires.Format(time.RFC3339)
	}
	if r.Until != nil {
		d["until"] = r.Until.Format(time.RFC3339)
	}
	return d
}

// tell makes an event known to those who listen: the stream, and Caddy's events of
// this configuration. It never waits.
func (a *App) tell(r eventRecord) {
	happened.add(r)
	a.emitter.offer(r)
}

// eventLogSize is how many events are remembered: how far behind a reader of the
// stream may be.
const eventLogSize = 1024

// happened are the last events of this process. They outlive configurations, so
// that a reader whose stream ended with a reload misses nothing.
var happened = eventLog{born: strconv.FormatInt(time.Now().UnixNano(), 36)}

// eventLog is a ring that writers overwrite and readers follow: a slow reader
// costs nothing and misses something.
type eventLog struct {
	born string // tells the logs of two processes apart

	mu   sync.Mutex
	ring [eventLogSize]eventRecord
	last uint64        // sequence number of the latest, 0 if there is none
	more chan struct{} // closed with the next one, nil if nobody waits
}

func (l *eventLog) add(r eventRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	r.seq = l.last
	l.ring[r.seq%eventLogSize] = r
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// after returns some records after seq, oldest first, how many of those are lost,
// and what is closed when there is more to come.
func (l *eventLog) after(seq uint64, into []eventRecord) (records []eventRecord, missed uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if oldest := l.last - min(l.last, eventLogSize); seq < oldest {
		missed, seq = oldest-seq, oldest
	}
	for records = into[:0]; seq < l.last && len(records) < cap(into); {
		seq++
		records = append(records, l.ring[seq%eventLogSize])
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	if seq < l.last {
		ready := make(chan struct{})
		close(ready)
		return records, missed, ready
	}
	return records, missed, l.more
}

// place returns the sequence number of the latest record.
func (l *eventLog) place() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
