// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/caddy-knock/caddy-knock/knockcore"

// State is how far the verification of a stream has come.
type State uint8

// The states of a stream. Foreign and Authentic are final.
const (
	// NeedMore means that the bytes so far can become a frame.
	NeedMore State = iota
	// Foreign means that the stream does not begin with a frame that is accepted.
	Foreign
	// Authentic means that it begins with one. Time, replay, and what the client
	// may do are for the gatekeeper to check.
	Authentic
)

// String returns "need more", "foreign" or "authentic".
func (s State) String() string {
	switch s {
	case NeedMore:
		return "need more"
	case Foreign:
		return "foreign"
	case Authentic:
		return "authentic"
	default:
		return ""
	}
}

// Verdict is what a stream's head amounts to.
type Verdict struct {
	State State
	// Need, if the state is NeedMore, is the number of bytes, counted from the start
	// of the stream, below which the state cannot change. It may grow with what
	// arrives before. A peer may send fewer and wait.
	Need int
	// Reason, if the state is Foreign, says why.
	Reason knockcore.Reason
	// ClientID, if the state is Foreign, names the client whose hint the frame has
	// though it is not good: this counts as a failure for bans. It is empty for
	// ReasonReplay: a ban would tell recorded frames from random bytes.
	ClientID string
	// Frame and Credential are set if the state is Authentic. Frame.Size bytes are
	// the frame; what follows belongs to the application.
	Frame      *TCPFrame
	Credential *knockcore.Credential
}
