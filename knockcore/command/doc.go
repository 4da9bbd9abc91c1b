// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package command runs commands for windows: one when a window opens, one when
// it closes. It is what the firewall `exec` and the commands of doors are made of.
//
// Commands are argument vectors. No shell is involved unless somebody writes one
// down; what a placeholder stands for is never split, joined or looked at again.
// The placeholders:
//
//	{knock.address}     the address, 192.0.2.7; a prefix if the window is for one
//	{knock.prefix}      the same with its length: 192.0.2.7/32
//	{knock.family}      ipv4 or ipv6
//	{knock.inet}        inet or inet6
//	{knock.client}      the client's ID
//	{knock.service}     the service's name
//	{knock.protocol}    tcp or udp
//	{knock.port}        22, or 8000-8010
//	{knock.port_first}  8000
//	{knock.port_last}   8010
//	{knock.action}      open, close, setup or teardown
//
// A command with a placeholder for protocol or port runs once for each of the
// service's. Names may hold almost anything, so that they stand as arguments of
// their own only; the others, of digits, letters, dots, colons and slashes, may
// also be part of one.
//
// A command that runs too long is killed with its process group; so many run at a
// time; of what they print a part is kept. They get a PATH and nothing else of the
// environment, / as directory, and no files. Those of one window never overlap.
//
// A journal keeps what is open together with the commands that close it, so that
// they run in time also if the process is killed meanwhile, or the configuration
// has others by then.
package command
