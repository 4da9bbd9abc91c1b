// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// keyHeader is the only place where a key is looked for, in its canonical form.
const keyHeader = "X-Api-Key"

// knock is one request to knock.
type knock struct {
	h    *Handler
	r    *http.Request
	gate *knockcore.Gatekeeper
	// source is the client's address, actor whom the limits are about: source, or
	// the peer where that is not known.
	source, actor netip.Addr
	client        *knockcore.Client
	// told says that the gatekeeper has told its observer about the failure.
	told bool
	// err says more about a failure.
	err error
}

// servePreflight answers what browsers ask before they knock.
func (h *Handler) servePreflight(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", h.CORSOrigin)
	w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	w.Header().Set("Access-Control-Allow-Headers", "X-Api-Key, Content-Type")
	w.WriteHeader(http.StatusNoContent)
}

// serveKnock answers POST /knock.
func (h *Handler) serveKnock(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	// The server waits for bodies that nobody reads, too, before the answer goes out;
	// it sets the deadline anew for the next request.
	if r.Body != nil && r.Body != http.NoBody {
		_ = http.NewResponseController(w).SetReadDeadline(start.Add(bodyTimeout))
	}
	w.Header().Set("Access-Control-Allow-Origin", h.CORSOrigin)
	w.Header().Set("Cache-Control", "no-store")
	k := &knock{h: h, r: r}
	opened, f := k.run()
	if f != nil {
		writeJSON(w, f.status, errorBody{f.text})
	} else {
		writeJSON(w, http.StatusOK, opened)
	}
	k.log(f, time.Since(start))
}

// run decides on a knock, in the order that clients know.
func (k *knock) run() (opened knockBody, f *failure) {
	if k.gate = gatekeeper(k.r.Context(), k.h.app); k.gate == nil {
		return opened, failStarting
	}
	if isEarly(k.r) {
		return opened, failEarly
	}
	k.source = clientAddr(k.r)
	if k.actor = k.source; !k.actor.IsValid() {
		k.actor = peerAddr(k.r)
	}
	exhausted := k.exhausted()
	opened, f = k.decide(exhausted)
	if f == nil || f == failTooMany {
		return opened, f
	}
	if !k.told {
		refusal := &knockcore.Refusal{Reason: f.reason, Detail: f.text}
		if errors.As(k.err, &refusal); k.client != nil {
			refusal.Client = k.client.ID
		}
		k.gate.Refuse(knockcore.MethodHTTP, k.source, refusal)
	}
	if !k.h.limits.fail(k.actor) {
		f = failTooMany
	}
	return opened, f
}

// exhausted reports whether the actor has failed so often that it is made to wait.
func (k *knock) exhausted() bool {
	bans := k.gate.Bans()
	return !k.h.limits.mayFail(k.actor) || bans != nil && k.source.IsValid() && bans.Banned(k.source, k.gate.Now())
}

func (k *knock) decide(exhausted bool) (opened knockBody, f *failure) {
	if !k.source.IsValid() {
		return opened, failNoAddress
	}
	if f = k.identify(); exhausted {
		// Whether the key is right shows only after the wait.
		k.h.limits.delay(k.r.Context())
	}
	if f != nil {
		return opened, f
	}
	o, f := readOrder(k.r)
	if f != nil {
		return opened, f
	}
	if f = k.mayAsk(o); f != nil {
		return opened, f
	}
	if !k.h.limits.succeed(k.actor) {
		k.gate.Refuse(knockcore.MethodHTTP, k.source, &knockcore.Refusal{Reason: knockcore.ReasonLimited, Client: k.client.ID})
		return opened, failTooMany
	}
	if opened, f = k.open(o); f != nil {
		k.h.limits.refund(k.actor)
	}
	return opened, f
}

// identify finds the client of the key.
func (k *knock) identify() *failure {
	key := k.r.Header.Get(keyHeader)
	if key == "" {
		return failNoKey
	}
	client := k.gate.Keyring().ClientByAPIKey(key)
	if client == nil {
		k.gate.Failed(knockcore.MethodHTTP, k.source)
		return failKey
	}
	k.client = client
	if k.err = k.gate.MayKnock(knockcore.Knock{Client: client, Method: knockcore.MethodHTTP, Source: k.source}); k.err != nil {
		return failKey // whoever has found the key learns nothing
	}
	return nil
}

// mayAsk checks whether the client may ask for this.
func (k *knock) mayAsk(o order) *failure {
	prefix := knockcore.AddrPrefix(k.source)
	if o.network.IsValid() {
		prefix = o.network
		least := k.client.RemoteBits6
		if prefix.Addr().Is4() {
			least = k.client.RemoteBits4
		}
		switch {
		case least == 0:
			return failRemote
		case tooWide(prefix):
			return failTooWide
		case prefix.Bits() < least:
			return failWiderThanKey
		}
	}
	if o.ttl > maxTTL {
		return failTTLTooLarge
	}
	if k.err = k.gate.Grantable(prefix); k.err != nil {
		if o.network.IsValid() {
			return failAddress
		}
		return failNoAddress // something in front hides the client
	}
	return nil
}

// open makes the grants.
func (k *knock) open(o order) (opened knockBody, f *failure) {
	services := k.services()
	if len(k.h.Services) > 0 && len(services) == 0 {
		return opened, failService
	}
	grants, err := k.gate.Admit(k.r.Context(), knockcore.Knock{
		Client: k.client, Method: knockcore.MethodHTTP, Source: k.source, For: o.network,
		Services: services, Length: length(k.client, o.ttl), MaxGrants: k.h.MaxGrants,
	})
	if err != nil {
		k.told = true
		if f = errorOfAdmit[knockcore.ReasonOf(err)]; f == nil {
			f = failService
		}
		return opened, f
	}
	opened.Entry = o.address
	if opened.Entry == "" {
		opened.Entry = k.source.String()
	}
	for _, g := range grants {
		opened.ExpiresIn = max(opened.ExpiresIn, int64(g.Expires.Sub(g.Made)/time.Second))
		opened.ExpiresAt = g.Made.Unix() + opened.ExpiresIn
	}
	return opened, nil
}

// services are those of the handler that the client may reach; none if the handler
// is about all.
func (k *knock) services() (reach []string) {
	for _, name := range k.h.Services {
		if k.client.MayReach(name) {
			reach = append(reach, name)
		}
	}
	return reach
}

// length is what a knock asks for: its ttl, else the client's ttl, else the
// client's max_ttl; services may cut it.
func length(c *knockcore.Client, ttl int64) time.Duration {
	const longest = maxTTL * time.Second
	switch {
	case ttl > 0:
		return time.Duration(ttl) * time.Second
	case c.TTL > 0:
		return min(c.TTL, longest)
	default:
		return min(c.MaxTTL, longest)
	}
}

// log writes the line that stands in the place of the access log's. Refusals are
// told once a minute by the app; here they are for debugging.
func (k *knock) log(f *failure, took time.Duration) {
	level, status := zapcore.InfoLevel, http.StatusOK
	if f != nil {
		level, status = zapcore.DebugLevel, f.status
	}
	entry := k.h.logger.Check(level, "knock")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.Int("status", status), zap.Stringer("client_ip", k.source), zap.String("remote", k.r.RemoteAddr),
		zap.String("host", k.r.Host), zap.String("proto", k.r.Proto), zap.String("user_agent", k.r.UserAgent()), zap.Duration("duration", took),
	}
	if k.client != nil {
		fields = append(fields, zap.String("client", k.client.ID))
	}
	if f != nil {
		fields = append(fields, zap.Stringer("reason", f.reason))
	}
	entry.Write(fields...)
}
