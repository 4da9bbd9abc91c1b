// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package importer turns the configuration of knockd, knock-rs, fwknop, pyknock,
// knock-proxy and Knocker into ours: a Caddyfile for servers, profiles for clients.
//
// Comments begin with "changed:" where a line means something else than before,
// "safer:" where it means the same without a weakness, "todo:" where the owner has
// to do something, and "was:" where they repeat the original. What has no
// equivalent is an error with its line: nothing is left out in silence. All errors
// of a file are reported together.
package importer

import (
	"errors"
	"fmt"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// Options say what the files do not.
type Options struct {
	// File names the input in messages.
	File string
	// Client is the ID of the client that doors of knockd and knock-rs and keys of
	// pyknock belong to, which know none; "" means the name of the program.
	Client string
	// Ports are those that commands guard which do not say so, as "tcp/22".
	Ports []string
}

// Profile is a client's profile, with the name to keep it under and what to know
// about it.
type Profile struct {
	Name  string
	Notes []string
	*knockclient.Profile
}

// MaxInput is the greatest input in bytes.
const MaxInput = 1 << 20

// problems collects errors.
type problems struct {
	file string
	list []error
}

func (p *problems) add(line int, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	switch {
	case line > 0:
		err = fmt.Errorf("%s:%d: %w", p.file, line, err)
	case p.file != "":
		err = fmt.Errorf("%s: %w", p.file, err)
	}
	p.list = append(p.list, err)
}

func (p *problems) err() error { return errors.Join(p.list...) }

func (o *Options) problems(b []byte) *problems {
	p := &problems{file: o.File}
	if len(b) > MaxInput {
		p.add(0, "the file is longer than %d bytes", MaxInput)
	}
	return p
}
