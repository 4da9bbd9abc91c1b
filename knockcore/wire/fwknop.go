// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// The message types of fwknop packets (fwknop-spa.md section 2.1).
const (
	FwknopCommand         = 0 // run a command; decoded, but always refused
	FwknopAccess          = 1 // open ports
	FwknopNATAccess       = 2 // open a port that is forwarded
	FwknopAccessTimeout   = 3 // FwknopAccess for so long
	FwknopNATTimeout      = 4 // FwknopNATAccess for so long
	FwknopLocalNAT        = 5 // open a port that leads to another one of the same host
	FwknopLocalNATTimeout = 6 // FwknopLocalNAT for so long
)

// Bounds of packets (fwknop-spa.md section 2.3).
const (
	fwknopMinLen = 140
	fwknopMaxLen = 399 // fwknopd takes longer ones for GnuPG
)

// FwknopMaxTimeout is the longest timeout that fwknop servers can read.
const FwknopMaxTimeout = 65536 * time.Second

var errFwknopShape = fmt.Errorf("%w: not the shape of a fwknop packet: 140 to 399 base64 characters without padding or prefix", knockcore.ReasonMalformed)

// Fwknop is the content of one SPA packet of fwknop 2 (fwknop-spa.md section 2).
type Fwknop struct {
	// Rand is the packet's random value: 16 decimal digits. For Seal, "" means a
	// fresh one.
	Rand string
	// User is the name that the sender claims: 1 to 48 bytes of printable ASCII
	// without any of "/\[]:;|=,+*?<>. It is authentic, but chosen by the key
	// holder.
	User string
	// Time is when the packet was made, in Unix seconds: 0 to 999999999999. Open
	// does not compare it with any clock: that is the caller's.
	Time int64
	// Version is the protocol version that the sender states: 1 to 8 printable
	// characters without a colon. For Seal, "" means "3.0.0". It has no effect.
	Version string
	// Type is one of the message types, 0 to 6.
	Type int
	// Allow is the IPv4 address to open for. 0.0.0.0 stands for the source of the
	// datagram. What may be granted is policy.
	Allow netip.Addr
	// Ports are what is asked for, each a single TCP or UDP port; for NAT types,
	// the first is the port on the gateway. Nil for FwknopCommand.
	Ports []knockcore.PortRange
	// NAT is the internal target "host,port" of types 2, 4, 5 and 6, otherwise "".
	NAT string
	// ServerAuth is a field that no known client sends, "" if absent. It has no
	// effect, and may contain any byte: quote it before printing.
	ServerAuth string
	// Timeout is how long to open, of types 3, 4 and 6: whole seconds, 0 to
	// FwknopMaxTimeout. 0 also stands for absent.
	Timeout time.Duration
	// Command is the command of type 0, otherwise "". It may contain any byte:
	// quote it before printing.
	Command string
	// DigestType is the digest inside the packet, named as HMAC types are. For
	// Seal, "" means sha256.
	DigestType string
	// Canonical is SHA-256 over the decoded salt and ciphertext. It is the same
	// however the packet is written, and identifies it to the replay guard. Open
	// sets it; Seal ignores it.
	Canonical [32]byte
}

// Timestamp is Time as a time.Time.
func (f *Fwknop) Timestamp() time.Time { return time.Unix(f.Time, 0) }

// ReplayKey identifies the packet of this client to the replay guard.
func (f *Fwknop) ReplayKey(clientID string) knockcore.ReplayKey {
	return knockcore.NewReplayKey(knockcore.ReplayFwknop, clientID, f.Canonical[:])
}

// fwknopTypeHas tells which extra fields a message type has (section 2.1).
func fwknopTypeHas(t int) (nat, timeout bool) {
	switch t {
	case FwknopNATAccess, FwknopLocalNAT:
		return true, false
	case FwknopAccessTimeout:
		return false, true
	case FwknopNATTimeout, FwknopLocalNATTimeout:
		return true, true
	default:
		return false, false
	}
}

// LooksLikeFwknop reports whether b could be a fwknop packet: 140 to 399
// characters of the standard base64 alphabet (no '=', no newline) that begin
// with 8, 9, + or /, as every packet does whose constant prefix was removed
// (section 1).
func LooksLikeFwknop(b []byte) bool {
	if len(b) < fwknopMinLen || len(b) > fwknopMaxLen {
		return false
	}
	switch b[0] {
	case '8', '9', '+', '/':
	default:
		return false
	}
	for _, c := range b {
		if !base64Char[c] {
			return false
		}
	}
	return true
}

// base64Char marks the characters of the standard base64 alphabet.
var base64Char = func() (table [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		table[c] = true
	}
	return table
}()
