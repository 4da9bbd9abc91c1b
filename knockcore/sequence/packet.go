// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Packet is what a source saw. Payload, options and checksum do not matter.
type Packet struct {
	// Src and Dst are the addresses. The source delivers only what is addressed
	// to this host; see Door.Targets.
	Src, Dst netip.Addr
	// Protocol is TCP or UDP; others are ignored.
	Protocol knockcore.Protocol
	// SrcPort and DstPort are the ports.
	SrcPort, DstPort uint16
	// TCPFlags is the flag byte of the TCP header.
	TCPFlags uint8
	// Seq is the TCP sequence number. 0 stands for unknown: programs that make
	// packets by hand often leave it so, and then a copy cannot be told from a
	// second knock.
	Seq uint32
	// Time is when the packet came, in a resolution of 1 ms.
	Time time.Time
}

// Match is an opened door.
type Match struct {
	// Door is the door that the source opened.
	Door *Door
	// Source is who knocked: the packet's source without zone, IPv4 as IPv4.
	Source netip.Addr
	// Started and Time are when the first and the last step came.
	Started, Time time.Time

	door *door
}

// EventKind says what happened to an attempt.
type EventKind uint8

// The events. An opening is not one of them: it is a Match.
const (
	// EventStage: a step was accepted and the stage was not reached before.
	EventStage EventKind = iota + 1
	// EventSpoiled: a packet out of order ended the attempts at Stage and below.
	EventSpoiled
	// EventTimeout: the time of the attempts at Stage and below ran out.
	EventTimeout
	// EventExhausted: the last sequence of a one-time file was used up; the door
	// does not open any more.
	EventExhausted
	// EventOneTimeFailed: a one-time sequence came whole, but could not be marked
	// as used; the door stays closed. Err says why.
	EventOneTimeFailed
)

// Event is something that happened to an attempt; see Config.Observe.
type Event struct {
	Kind   EventKind
	Door   *Door
	Source netip.Addr
	// Stage is the number of steps done: 1 to 31.
	Stage int
	// Time is the packet's, or Sweep's.
	Time time.Time
	Err  error
}
