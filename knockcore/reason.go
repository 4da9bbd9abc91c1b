// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"errors"
	"fmt"
	"time"
)

// Reason says why a knock was refused. It is an enum, used as is for metric
// labels, logs and the output of `inspect`; it is also an error, so that
// decoders can return it as it stands.
type Reason uint8

// The reasons, in the order in which checks usually happen.
const (
	// ReasonNone means that nothing was refused.
	ReasonNone Reason = iota
	// ReasonMalformed is a frame whose structure is wrong.
	ReasonMalformed
	// ReasonUnsupported is a frame of a known protocol with a version, mode or
	// message type that is not accepted.
	ReasonUnsupported
	// ReasonUnknownClient is a frame that fits the credentials of nobody. Foreign
	// traffic (TLS, HTTP, garbage) ends here too.
	ReasonUnknownClient
	// ReasonAuthFailed is a frame that fits a client's hint but fails
	// authentication, or a wrong API key.
	ReasonAuthFailed
	// ReasonWrongPort is an authentic frame made for another port.
	ReasonWrongPort
	// ReasonWrongMethod is an authentic frame of a method that is not enabled
	// here, or that the client may not use.
	ReasonWrongMethod
	// ReasonStale is a frame that is older than the time window.
	ReasonStale
	// ReasonFuture is a frame that is further ahead than the time window.
	ReasonFuture
	// ReasonReplay is a frame that was accepted before.
	ReasonReplay
	// ReasonReplayFull means that the replay guard cannot remember another nonce.
	ReasonReplayFull
	// ReasonNoSession is a frame for a service that requires a knock session,
	// with no such session.
	ReasonNoSession
	// ReasonUnknownService is a knock for a port or name that no service has.
	ReasonUnknownService
	// ReasonForbidden is a knock for something that this client may not do.
	ReasonForbidden
	// ReasonLimited is a knock over a rate or count limit.
	ReasonLimited
	// ReasonBanned is a knock from a banned address.
	ReasonBanned
	// ReasonStoreError means that the state could not be kept.
	ReasonStoreError
	// ReasonFirewallError means that no window could be opened.
	ReasonFirewallError

	reasonCount
)

var reasonNames = [reasonCount]string{
	"ok", "malformed", "unsupported", "unknown_client", "auth_failed", "wrong_port",
	"wrong_method", "stale", "future", "replay", "replay_full", "no_session",
	"unknown_service", "forbidden", "limited", "banned", "store_error", "firewall_error",
}

// String returns the name used in metrics, logs and JSON, "ok" for ReasonNone.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return "unknown"
}

// Error makes a Reason usable as an error.
func (r Reason) Error() string { return "refused: " + r.String() }

// Reasons returns every reason but ReasonNone, in order: for metrics that want
// each label to exist from the start.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := ReasonNone + 1; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}

// Refusal is a Reason with what an operator needs to understand it. Nothing in
// it comes unchecked from the wire.
type Refusal struct {
	Reason Reason
	// Client is the ID of the client that the frame fits, "" if none does.
	Client string
	// Skew is by how much the sender's clock differs from ours (positive: it is
	// ahead); set for ReasonStale and ReasonFuture of authentic frames.
	Skew time.Duration
	// Detail is for people, "" if the reason says it all.
	Detail string
}

// Error tells the reason and the detail.
func (r *Refusal) Error() string {
	s := r.Reason.Error()
	if r.Client != "" {
		s += " (client " + r.Client + ")"
	}
	if r.Skew != 0 {
		s += fmt.Sprintf(": the client's clock is %v off", r.Skew)
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}

// Unwrap makes errors.Is(err, ReasonReplay) work.
func (r *Refusal) Unwrap() error { return r.Reason }

// ReasonOf finds the reason in err: ReasonNone for nil, ReasonStoreError for an
// error that carries no reason (the only errors of others that reach the
// gatekeeper are those of stores).
func ReasonOf(err error) Reason {
	if err == nil {
		return ReasonNone
	}
	var r Reason
	if errors.As(err, &r) {
		return r
	}
	return ReasonStoreError
}
