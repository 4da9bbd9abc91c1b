// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// item is a grant or a ban as this node knows it. One of both is set.
type item struct {
	grant *knockcore.Grant
	ban   *knockcore.Ban
	// version is that of the change that made it so; 0 if the server has not
	// confirmed any yet.
	version  uint64
	instance string // of the node that made it so
}

// over is when the item may be forgotten.
func (i *item) over() time.Time {
	if i.ban != nil {
		return i.ban.Until.Add(i.ban.Until.Sub(i.ban.Made))
	}
	return i.grant.Expires
}

const (
	grantItem = "g"
	banItem   = "b"
)

func grantName(id knockcore.GrantID) string { return grantItem + id.String() }
func banName(p netip.Prefix) string         { return banItem + p.String() }

// itemJSON is an item's payload, behind the uses. Times are Unix ms by the server's
// clock, so that the clocks of nodes may differ.
type itemJSON struct {
	Client  string       `json:"c,omitempty"`
	Service string       `json:"s,omitempty"`
	Method  string       `json:"m,omitempty"`
	Scope   uint8        `json:"o,omitempty"`
	Prefix  netip.Prefix `json:"p,omitzero"`
	Source  netip.Addr   `json:"f,omitzero"`
	Session string       `json:"k,omitempty"`
	Made    int64        `json:"a"`
	Until   int64        `json:"u"`
	Strikes int          `json:"n,omitempty"`
}

// usesLen is how many characters the uses take.
const usesLen = 6

const (
	maxName    = 255
	maxSession = 1 << 10
	maxUses    = 99_999
	maxMillis  = 1 << 47
)

// payload writes an item. toServer turns times of this node into the server's.
func (i *item) payload(toServer func(time.Time) int64) (string, error) {
	var j itemJSON
	uses := -1
	if g := i.grant; g != nil {
		if len(g.Client) > maxName || len(g.Service) > maxName || len(g.Session) > maxSession {
			return "", errors.New("a name in the grant is too long")
		}
		uses = min(g.Uses, maxUses)
		j = itemJSON{
			Client: g.Client, Service: g.Service, Method: g.Method.String(), Scope: uint8(g.Scope), Prefix: g.Prefix,
			Source: g.Source, Session: hex.EncodeToString(g.Session), Made: toServer(g.Made), Until: toServer(g.Expires),
		}
	} else {
		j = itemJSON{Prefix: i.ban.Prefix, Made: toServer(i.ban.Made), Until: toServer(i.ban.Until), Strikes: i.ban.Strikes}
	}
	b, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%*d%s", usesLen, uses, b), nil
}

var errItem = errors.New("an item in the server is malformed")

// parseItem reads what payload writes. It believes nothing: other nodes may be of
// another version, and others may write into the server.
func parseItem(name, payload string, version uint64, instance string, fromServer func(int64) time.Time) (*item, error) {
	if len(payload) < usesLen || len(name) < 2 || len(instance) > maxName {
		return nil, errItem
	}
	uses, err := strconv.Atoi(strings.TrimLeft(payload[:usesLen], " "))
	if err != nil || uses < -1 {
		return nil, errItem
	}
	var j itemJSON
	if err := json.Unmarshal([]byte(payload[usesLen:]), &j); err != nil {
		return nil, errItem
	}
	if j.Made < 0 || j.Until < j.Made || j.Until > maxMillis || j.Prefix != knockcore.NormalPrefix(j.Prefix) || !j.Prefix.IsValid() {
		return nil, errItem
	}
	i := &item{version: version, instance: instance}
	if name[:1] == banItem {
		if banName(j.Prefix) != name || j.Strikes < 1 {
			return nil, errItem
		}
		i.ban = &knockcore.Ban{Prefix: j.Prefix, Made: fromServer(j.Made), Until: fromServer(j.Until), Strikes: j.Strikes}
		return i, nil
	}
	id, err := knockcore.ParseGrantID(name[1:])
	if err != nil || name != grantName(id) {
		return nil, errItem
	}
	var method knockcore.Method
	if j.Method != "" { // by hand
		if method, err = knockcore.ParseMethod(j.Method); err != nil {
			return nil, errItem
		}
	}
	scope := knockcore.Scope(j.Scope)
	session, err := hex.DecodeString(j.Session)
	if err != nil || len(session) > maxSession || len(j.Client) > maxName || len(j.Service) > maxName || !j.Source.IsValid() ||
		scope != knockcore.ScopeAddress && scope != knockcore.ScopeSession || j.Client == "" || j.Service == "" {
		return nil, errItem
	}
	i.grant = &knockcore.Grant{
		ID: id, Client: j.Client, Service: j.Service, Method: method, Scope: scope, Prefix: j.Prefix, Source: j.Source,
		Made: fromServer(j.Made), Expires: fromServer(j.Until), Uses: uses,
	}
	if len(session) > 0 {
		i.grant.Session = session
	}
	return i, nil
}

// parseValue reads the value of an item's key.
func parseValue(name, value string, fromServer func(int64) time.Time) (*item, error) {
	text, rest, _ := strings.Cut(value, " ")
	instance, payload, found := strings.Cut(rest, " ")
	version, err := parseVersion(text)
	if err != nil || !found {
		return nil, errItem
	}
	return parseItem(name, payload, version, instance, fromServer)
}

// entry is a change in the log.
type entry struct {
	kind           byte
	version, about uint64 // of the change, and of the item
	instance       string
	name, payload  string
	at             int64 // Unix ms by the server's clock
}

// parseEntry reads a change.
func parseEntry(id, text string) (e entry, err error) {
	parts := strings.SplitN(text, " ", 6)
	ms, _, _ := strings.Cut(id, "-")
	if len(parts) != 6 || len(parts[0]) != 1 || !strings.Contains("nsdpr", parts[0]) {
		return e, errItem
	}
	e = entry{kind: parts[0][0], instance: parts[3], name: parts[4], payload: parts[5]}
	if e.version, err = parseVersion(parts[1]); err != nil {
		return e, errItem
	}
	if e.about, err = parseVersion(parts[2]); err != nil {
		return e, errItem
	}
	if e.at, err = strconv.ParseInt(ms, 10, 64); err != nil {
		return e, errItem
	}
	return e, nil
}

// nonceEntry writes a nonce for the log; parseNonce reads it.
func nonceEntry(n knockcore.Nonce) (name, payload string) {
	return hex.EncodeToString(n.Key[:]), strconv.FormatInt(n.Time.UnixMilli(), 10) + " " + n.Client
}

func parseNonce(e entry) (n knockcore.Nonce, err error) {
	key, err := hex.DecodeString(e.name)
	ms, client, found := strings.Cut(e.payload, " ")
	if err != nil || len(key) != len(n.Key) || !found || len(client) > maxName {
		return n, errItem
	}
	at, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || at < -maxMillis || at > maxMillis {
		return n, errItem
	}
	return knockcore.Nonce{Key: knockcore.ReplayKey(key), Client: client, Time: time.UnixMilli(at)}, nil
}
