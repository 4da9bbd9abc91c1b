// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package sequence watches packets and finds the sources that knock at ports in
// the order that a door asks for, as knockd and knock-rs do (port-sequences.md).
// It is pure: packets in, openings out; time is the packets' own.
//
// # When a door opens
//
// A packet hits a step if protocol and port are the step's, its TCP flags pass
// the step's test, and it goes to one of the door's targets. A door opens for a
// source when the source has hit all its steps in order, with distinct packets,
// the first and the last at most Within apart and each two neighbours at most
// Idle, and nothing in between spoiled it:
//
//   - A hit on one of the door's own ports out of order spoils: neither the next
//     step of any attempt, nor a step that one has reached already.
//   - A hit on a port of other doors spoils if it advances nothing there either.
//     One that is a step there does not, so that several users behind one
//     address, knocking at different doors, do not disturb each other.
//   - Ports of no door do not matter, nor do packets that fail the flag test.
//   - A door that is Strict has a single attempt for each source, spoiled by
//     everything but its next step and copies.
//
// A packet that spoils is still looked at as a first step. Every door looks at
// every packet, so that doors that share a beginning, or all, open each on its
// own.
//
// Under one address any number of attempts run side by side at one door: the
// matcher keeps for every stage the attempt that began last, which may do
// whatever an older one at that stage may do and for longer. So a user who starts
// over, sends every packet twice, or shares an address with one who knocks at the
// same door, or only ever at its first port, opens it; an attempt is never in the
// way of another. An opening ends the attempts that began with the one that
// opened, or before. Where two users' knocks overlap wholly, that can be one
// opening for both: it is the same address. After an opening, hits on the door's
// ports explain nothing and spoil nothing until one is a step again.
//
// # Copies
//
// A packet is a copy if a recent step (30 s, the last few of the source) had the
// same destination port, source port and non-zero TCP sequence number: a
// retransmission, or a frame delivered twice. A copy never spoils. If all steps
// of a door differ, a copy may count as a step: it can only stand for its
// original, and clients that send fixed numbers go on working. If a port occurs
// twice, or is the only one, a copy does not count. UDP datagrams and crafted
// segments with sequence number 0 have nothing to tell a copy from a second knock
// by: they count, and do not spoil if they are like a recent step.
//
// # Bounds
//
// Sources are remembered from their first step on, in tables that are allocated
// once; see Limits. The work for a packet depends on the doors that have its port
// and not on how full the tables are: a source has its place in one set of 16
// records, and nothing else is looked at.
//
// Why a flood does not keep an honest knock out:
//
//   - A newcomer is always let in. In a full set the most numerous stage loses its
//     quietest record. Who floods with first steps therefore evicts other first
//     steps; a source that is a step further stays. Who knows more steps and
//     floods at stage 2 evicts at stage 2, and never takes the place of all
//     newcomers.
//   - Between the first and the second knock an honest source waits among the
//     newcomers of its set until about 16 of them have come after it: with the
//     default of 131072 sources, a flood of 100,000 new addresses a second leaves
//     it more than a second, and one of fewer addresses than half the table, at
//     whatever rate, usually for ever. No bounded memory can do more, since
//     before its second knock an honest source looks like any other.
//   - The sets are chosen by a keyed hash of the /24 or /64 prefix, so that nobody
//     can aim at somebody else's set, and a prefix can reach only 16 sets: whoever
//     owns a /64, or one network of liars, fills 256 records at most. A whole /24
//     fits in them, so that an IPv4 address cannot be crowded out by its
//     neighbours.
//   - One host that hits the first port again and again has one record. If it
//     shares the address of an honest user, it does not disturb that either.
//
// A scan from the honest user's own address, and spoofed packets that know the
// door's ports and that address, can spoil a knock; a port sequence has nothing
// to tell them apart by. It is no secret to those who can see the packets.
package sequence
