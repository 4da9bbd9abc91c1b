// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"strings"
)

// OtherServerError says that the profile found is for another server than the
// one asked for. It is not used then: a frame that reaches the wrong host can be
// passed on to the right one.
type OtherServerError struct{ Name, Server, Host string }

// Error names both.
func (e *OtherServerError) Error() string {
	return fmt.Sprintf("profile %s is for server %s, not for %s", e.Name, e.Server, e.Host)
}

// noProfileError is fs.ErrNotExist with what was looked for.
type noProfileError struct{ what string }

func (e *noProfileError) Error() string { return "finding a profile: there is none " + e.what }
func (e *noProfileError) Unwrap() error { return fs.ErrNotExist }

// Find looks for the profile of a client at a host, either of which may be "".
//
// With a client it is the one named CLIENT@HOST, else the one named CLIENT.
// Without, it is the only one whose server is the host; several are an error. A
// profile that names a server is used for that one only: see OtherServerError.
// The error wraps fs.ErrNotExist if there is none.
func (p Profiles) Find(client, host string) (name string, profile *Profile, err error) {
	if client == "" {
		return p.findHost(host)
	}
	names := []string{client}
	if host != "" {
		names = []string{client + "@" + host, client}
	}
	for _, name := range names {
		profile, err := p.Load(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return name, nil, err
		case host != "" && profile.Server != "" && !sameHost(profile.Server, host):
			return name, nil, &OtherServerError{name, profile.Server, host}
		default:
			return name, profile, nil
		}
	}
	return "", nil, &noProfileError{fmt.Sprintf("named %s in %s", strings.Join(names, " or "), p.Dir)}
}

// findHost finds the only profile of a server. Profiles that cannot be read do
// not count, unless they are the only ones.
func (p Profiles) findHost(host string) (string, *Profile, error) {
	names, err := p.Names()
	if err != nil {
		return "", nil, err
	}
	var found []string
	var profile *Profile
	var unread error
	for _, name := range names {
		candidate, err := p.Load(name)
		if err != nil {
			unread = errors.Join(unread, err)
		} else if candidate.Server != "" && sameHost(candidate.Server, host) {
			found, profile = append(found, name), candidate
		}
	}
	switch {
	case len(found) == 1:
		return found[0], profile, nil
	case len(found) > 1:
		return "", nil, fmt.Errorf("finding a profile: several are for %s: %s; say which client, as in CLIENT@%[1]s", host, strings.Join(found, ", "))
	case unread != nil:
		return "", nil, unread
	default:
		return "", nil, &noProfileError{fmt.Sprintf("for server %s in %s", host, p.Dir)}
	}
}

// sameHost compares host names, or addresses, as people write them.
func sameHost(a, b string) bool {
	a, b = plainHost(a), plainHost(b)
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX == nil && errY == nil {
		return x.Unmap() == y.Unmap()
	}
	return strings.EqualFold(a, b)
}

func plainHost(h string) string {
	return strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(h, "["), "]"), ".")
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@"

// escapeName makes a name fit for a file on every system. A leading dot would
// hide the file.
func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; strings.IndexByte(nameBytes, c) < 0 || i == 0 && c == '.' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unescapeName(base string) (string, error) { return url.PathUnescape(base) }
