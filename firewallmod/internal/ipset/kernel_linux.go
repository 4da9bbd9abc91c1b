// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
)

// kernel is the netlink socket to ipset.
type kernel struct{ handle *netlink.Handle }

func (k *kernel) open() error {
	if k.handle != nil {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	if err := h.SetSocketTimeout(5 * time.Second); err != nil {
		h.Close()
		return err
	}
	k.handle = h
	return nil
}

func (k *kernel) close() {
	if k.handle != nil {
		k.handle.Close()
		k.handle = nil
	}
}

// create makes a set of ours unless it stands. A set of the name that is of
// another kind is an error.
func (k *kernel) create(name string, v6 bool) error {
	family := uint8(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	err := safely(func() error {
		return k.handle.IpsetCreate(name, "hash:net", netlink.IpsetCreateOptions{
			Replace: true, Timeout: new(uint32), Family: family, MaxElements: maxEntries,
		})
	})
	return explain("making set "+name, err)
}

func entry(p netip.Prefix, timeout *uint32) *netlink.IPSetEntry {
	return &netlink.IPSetEntry{IP: p.Addr().AsSlice(), CIDR: uint8(p.Bits()), Timeout: timeout, Replace: true}
}

// add opens until expires, or moves the end: at once and without a gap.
func (k *kernel) add(set string, p netip.Prefix, expires time.Time) error {
	left := timeout(time.Now(), expires)
	return explain("adding to set "+set, safely(func() error { return k.handle.IpsetAdd(set, entry(p, &left)) }))
}

// remove closes; what is not there is no error.
func (k *kernel) remove(set string, p netip.Prefix) error {
	return explain("removing from set "+set, safely(func() error { return k.handle.IpsetDel(set, entry(p, nil)) }))
}

// set is what the kernel says of a set.
type set struct {
	name    string
	kind    string
	v6      bool
	timeout bool
	entries map[netip.Prefix]time.Time // the zero time: for ever
}

// list returns the set, or nil if there is none of the name.
func (k *kernel) list(name string) (*set, error) {
	now := time.Now()
	var result *netlink.IPSetResult
	err := safely(func() (err error) { result, err = k.handle.IpsetList(name); return err })
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, explain("reading set "+name, err)
	}
	s := &set{name: name, kind: result.TypeName, v6: result.Family == unix.AF_INET6, timeout: result.Timeout != nil, entries: map[netip.Prefix]time.Time{}}
	for _, e := range result.Entries {
		if p, ok := prefixOf(e.IP, e.CIDR, s.v6); ok {
			s.entries[p] = time.Time{}
			if e.Timeout != nil && *e.Timeout > 0 {
				s.entries[p] = now.Add(time.Duration(*e.Timeout) * time.Second)
			}
		}
	}
	return s, nil
}

// destroy takes a set of ours away.
func (k *kernel) destroy(name string) error {
	return explain("destroying set "+name, safely(func() error { return k.handle.IpsetDestroy(name) }))
}

// names returns the names of all sets.
func (k *kernel) names() (names []string, err error) {
	var all []netlink.IPSetResult
	err = safely(func() (err error) { all, err = k.handle.IpsetListAll(); return err })
	if err != nil {
		return nil, explain("listing sets", err)
	}
	for _, s := range all {
		names = append(names, s.SetName)
	}
	return names, nil
}

// errHashFull is IPSET_ERR_HASH_FULL, which the library does not name.
const errHashFull = nl.IPSetError(nl.IPSET_ERR_TYPE_SPECIFIC)

// safely calls the library, which panics where an error is not one of the
// kernel's: a dump that was disturbed, a timeout.
func safely(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("talking to the kernel: %v", r)
		}
	}()
	return fn()
}

// explain says what an error of the kernel means.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var refused nl.IPSetError
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: no permission; Caddy needs CAP_NET_ADMIN: %w", doing, err)
	case errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EPROTO) || errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: the kernel has no ipset of this kind: %w (%w)", doing, err, engine.ErrUnsupported)
	case errors.As(err, &refused) && refused == errHashFull:
		return fmt.Errorf("%s: %w", doing, ErrFull)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}
