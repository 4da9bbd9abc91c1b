// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"crypto/sha256"
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
	// sum is that of the API key, zero if there is none, and read what reads the order:
	// of Knocker's API, or of the page.
	sum    [sha256.Size]byte
	read   func(*http.Request) (order, *failure)
	client *knockcore.Client
	// device is the client's device that has the key, if it has one of its own.
	device string
	// grants are what the knock made.
	grants []*knockcore.Grant
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
	k := &knock{h: h, r: r, sum: sumOf(r.Header.Get(keyHeader)), read: readOrder}
	opened, f := k.run()
	if f != nil {
		writeJSON(w, f.status, errorBody{f.text})
	} else {
		writeJSON(w, http.StatusOK, opened)
	}
	k.log(f, time.Since(start))
}

// sumOf is the sum by which a key is looked up, zero if there is none.
func sumOf(key string) (sum [sha256.Size]byte) {
	if key != "" {
		sum = knockcore.HashAPIKey(key)
	}
	return sum
}

// run decides on a knock, in the order that clients know.
func (k *knock) run() (opened knockBody, f *failure) {
	if f = k.prepare(); f != nil {
		return opened, f
	}
	opened, f = k.decide(k.exhausted())
	return opened, k.account(f)
}

// prepare finds out where the request comes from.
func (k *knock) prepare() *failure {
	if k.gate = gatekeeper(k.r.Context(), k.h.app); k.gate == nil {
		return failStarting
	}
	if isEarly(k.r) {
		return failEarly
	}
	k.source = clientAddr(k.r)
	if k.actor = k.source; !k.actor.IsValid() {
		k.actor = peerAddr(k.r)
	}
	return nil
}

// account counts a failure, if it is one, and returns what to answer.
func (k *knock) account(f *failure) *failure {
	if f == nil || f == failTooMany {
		return f
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
	return f
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
	o, f := k.read(k.r)
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
	if k.sum == [sha256.Size]byte{} {
		return failNoKey
	}
	client := k.gate.Keyring().ClientByAPIKeyHash(k.sum)
	if client == nil {
		k.gate.Failed(knockcore.MethodHTTP, k.source)
		return failKey
	}
	k.client = client
	if dev, ok := k.h.app.Device(k.sum); ok {
		k.device = dev.ID
	}
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
		Services: services, Length: length(k.client, o.ttl), MaxGrants: k.h.MaxGrants, Device: k.device,
	})
	if err == nil && k.gone() {
		for _, g := range grants {
			_, _ = k.gate.Revoke(k.r.Context(), g.ID, "device revoked")
		}
		return opened, failKey
	}
	if err != nil {
		k.told = true
		if f = errorOfAdmit[knockcore.ReasonOf(err)]; f == nil {
			f = failService
		}
		return opened, f
	}
	k.grants = grants
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

// gone reports whether the device was revoked meanwhile: what ended its grants may
// have come before this one.
func (k *knock) gone() bool {
	if k.device == "" {
		return false
	}
	_, ok := k.h.app.Device(k.sum)
	return !ok
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
