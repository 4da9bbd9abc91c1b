// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package storagestore

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Everything is under one folder, so that one listing tells of all:
//
//	knock/grants/ID.STAMP           a grant
//	knock/bans/PREFIX.STAMP         a ban
//	knock/orders/RANDOM.STAMP       revoke what a selection matches
//	knock/nodes/NODE.ITEMS.STAMP    a node lives, and how many grants and bans it knows
//	knock/marks/RANDOM.STAMP        this is the storage that was used before
//
// A key is written once and never changed: what takes the place of an entry has
// another stamp. So a listing shows also what was renewed.
const (
	root    = "knock"
	grants  = "grants"
	bans    = "bans"
	orders  = "orders"
	nodes   = "nodes"
	marks   = "marks"
	maxName = 255
)

// stamp is when something was written, by the writer's clock, and a random number
// that no other stamp has.
func newStamp(now time.Time) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return fmt.Sprintf("%012x%s", now.UnixMilli(), hex.EncodeToString(b[:]))
}

// listed is a key that a listing has.
type listed struct {
	key, folder, name string // without stamp
	written           time.Time
}

// parseKey reads a key; ok is false for those that are not ours.
func parseKey(key string) (l listed, ok bool) {
	rest, ok := strings.CutPrefix(key, root+"/")
	folder, file, found := strings.Cut(rest, "/")
	dot := strings.LastIndexByte(file, '.')
	if !ok || !found || dot < 1 || len(file)-dot-1 != 20 || len(file) > maxName {
		return l, false
	}
	if _, err := strconv.ParseUint(file[dot+13:], 16, 32); err != nil {
		return l, false
	}
	ms, err := strconv.ParseInt(file[dot+1:dot+13], 16, 64)
	return listed{key, folder, file[:dot], time.UnixMilli(ms)}, err == nil
}

func grantName(id knockcore.GrantID) string { return grants + "/" + id.String() }

// banName is a prefix as a file's name.
func banName(p netip.Prefix) string {
	return bans + "/" + strings.NewReplacer("/", "_", ":", "-").Replace(p.String())
}

// parseBanName reads the part of a ban's name behind the slash.
func parseBanName(id string) (netip.Prefix, error) {
	return netip.ParsePrefix(strings.NewReplacer("_", "/", "-", ":").Replace(id))
}

// entry is a grant or a ban as the storage keeps it, or shall keep it. One of both
// is set; both are never changed.
type entry struct {
	key, name string
	node      string // that wrote it
	own       bool   // it was this one
	kept      bool   // the storage has it
	grant     *knockcore.Grant
	ban       *knockcore.Ban
	// replaces are the keys of what it took the place of.
	replaces []string
}

// over is when the entry may be forgotten.
func (e *entry) over() time.Time {
	if e.ban != nil {
		return e.ban.Until.Add(e.ban.Until.Sub(e.ban.Made))
	}
	return e.grant.Expires
}

// value is what stands behind a key.
type value struct {
	Node  string               `json:"node"`
	Grant *knockcore.Grant     `json:"grant,omitempty"`
	Ban   *knockcore.Ban       `json:"ban,omitempty"`
	Order *knockcore.Selection `json:"order,omitempty"`
}

var errEntry = errors.New("it is malformed")

// parseEntry reads an entry. It believes nothing: others may write into the storage.
// A clock that is behind the writer's makes no grant longer than it was.
func parseEntry(l listed, b []byte, now time.Time) (*entry, error) {
	var v value
	if err := json.Unmarshal(b, &v); err != nil || len(v.Node) > maxName {
		return nil, errEntry
	}
	e := &entry{key: l.key, name: path.Join(l.folder, l.name), node: v.Node, kept: true, grant: v.Grant, ban: v.Ban}
	switch {
	case l.folder == grants && v.Grant != nil && v.Ban == nil:
		g := v.Grant
		if grantName(g.ID) != e.name || g.Scope != knockcore.ScopeAddress || !goodName(g.Client) || !goodName(g.Service) ||
			!g.Source.IsValid() || !goodPrefix(g.Prefix) || len(g.Session) > maxName || g.Uses != -1 {
			return nil, errEntry
		}
		g.Made, g.Expires = rebase(g.Made, g.Expires, now)
	case l.folder == bans && v.Ban != nil && v.Grant == nil:
		if !goodPrefix(v.Ban.Prefix) || banName(v.Ban.Prefix) != e.name || v.Ban.Strikes < 1 {
			return nil, errEntry
		}
		v.Ban.Made, v.Ban.Until = rebase(v.Ban.Made, v.Ban.Until, now)
	default:
		return nil, errEntry
	}
	return e, nil
}

func goodName(s string) bool { return s != "" && len(s) <= maxName }

func goodPrefix(p netip.Prefix) bool { return p.IsValid() && p == knockcore.NormalPrefix(p) }

// rebase gives times of another clock a monotonic reading, and lets the end be no
// further away than the whole was long.
func rebase(made, end, now time.Time) (_, _ time.Time) {
	length := max(0, end.Sub(made))
	end = now.Add(min(length, end.Sub(now)))
	return end.Add(-length), end
}
