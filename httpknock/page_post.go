// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/device"
)

// The failures of the page.
var (
	failForeign  = &failure{http.StatusForbidden, "This did not come from the page. Open the page and try again.", knockcore.ReasonForbidden}
	failInsecure = &failure{http.StatusForbidden, "This page needs HTTPS.", knockcore.ReasonForbidden}
	failForm     = &failure{http.StatusBadRequest, "The form can’t be read.", knockcore.ReasonMalformed}
	failBadKey   = &failure{http.StatusUnauthorized, "This key is not right, or it has been revoked.", knockcore.ReasonAuthFailed}
	failCookie   = &failure{http.StatusBadRequest, "A browser can’t keep this key; make one with caddy-knock hash-key --new.", knockcore.ReasonMalformed}
	failClose    = &failure{http.StatusInternalServerError, "Not everything could be closed.", knockcore.ReasonFirewallError}
)

// pageTexts says for people what Knocker's texts say for its clients.
var pageTexts = map[*failure]string{
	failNoAddress:    "Your address can’t be determined. Something in front of the server hides it.",
	failAddress:      "This is no address that can be opened.",
	failTooWide:      "This network is too large.",
	failWiderThanKey: "This network is larger than you may open.",
	failRemote:       "You may open for your own address only.",
	failService:      "You may open nothing here.",
	failEarly:        "Please try again.",
	failTooMany:      "That was too often. Wait a minute and try again.",
	failInternal:     "The server could not open it. Its log says why.",
	failFull:         "The server can’t open any more. Try again later.",
	failStarting:     "The server is starting. Try again in a moment.",
	failTTL:          "This is no length of time.",
}

func (f *failure) forPeople() string {
	if text := pageTexts[f]; text != "" {
		return text
	}
	return f.text
}

// visit is a request to the page.
type visit struct {
	*knock
	w    http.ResponseWriter
	form url.Values
}

// visit finds out who comes: by the key in the cookie, unless it is told another sum.
// A key that is not right (any more) is forgotten and counts as a failure.
func (h *Handler) visit(w http.ResponseWriter, r *http.Request) *visit {
	return &visit{knock: &knock{h: h, r: r, sum: sumOf(keyOf(r))}, w: w}
}

// identify finds the client of the key; it is none if there is no key.
func (v *visit) identify() *failure {
	if v.gate = gatekeeper(v.r.Context(), v.h.app); v.gate == nil {
		return failStarting
	}
	if v.source = clientAddr(v.r); v.source.IsValid() {
		v.actor = v.source
	} else {
		v.actor = peerAddr(v.r)
	}
	if v.sum == sumOf("") {
		return nil
	}
	exhausted := v.exhausted()
	f := v.knock.identify()
	if exhausted {
		v.h.limits.delay(v.r.Context())
	}
	if f == nil {
		return nil
	}
	v.client = nil
	if f = v.account(f); f != failTooMany {
		f = failBadKey
	}
	return f
}

// page answers with the page.
func (v *visit) page(f *failure, change func(*view)) {
	shown := v.view()
	status := http.StatusOK
	if f != nil {
		status, shown.Error = f.status, f.forPeople()
	}
	if change != nil {
		change(shown)
	}
	if v.client != nil { // so that it is kept for as long again
		if key := keyOf(v.r); key != "" && v.sum == sumOf(key) {
			setKey(v.w, v.r, key)
		}
	} else if f == failBadKey && v.gate.Keyring().ClientByAPIKeyHash(sumOf(keyOf(v.r))) == nil {
		setKey(v.w, v.r, "") // one that may not knock from here stays
	}
	v.h.render(v.w, status, shown)
}

// servePage shows the page.
func (h *Handler) servePage(w http.ResponseWriter, r *http.Request) {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && !strings.HasSuffix(original.URL.Path, "/") {
		w.Header().Set("Location", lastPart(original.URL)+"/")
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	v := h.visit(w, r)
	f := v.identify()
	if f == nil && !isSecure(r) {
		f = &failure{http.StatusOK, failInsecure.text, knockcore.ReasonForbidden}
	}
	v.page(f, nil)
}

// lastPart is the last part of a path, for a redirect relative to it.
func lastPart(u *url.URL) string {
	p := u.EscapedPath()
	return "./" + p[strings.LastIndexByte(p, '/')+1:]
}

// begin reads the form of a request that changes something.
func (v *visit) begin() *failure {
	if v.gate = gatekeeper(v.r.Context(), v.h.app); v.gate == nil {
		return failStarting
	}
	switch {
	case isEarly(v.r):
		return failEarly
	case !isSecure(v.r):
		return failInsecure
	case !isOwn(v.r):
		return failForeign
	}
	return v.readForm()
}

// readForm reads the form, which is small and soon here.
func (v *visit) readForm() *failure {
	_ = http.NewResponseController(v.w).SetReadDeadline(time.Now().Add(bodyTimeout))
	if v.r.ContentLength > maxBody {
		return failTooLarge
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxBody)
	if err := v.r.ParseForm(); err != nil {
		return failForm
	}
	v.form = v.r.PostForm
	return nil
}

// servePagePost does what a button says.
func (h *Handler) servePagePost(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	v := h.visit(w, r)
	if f := v.begin(); f != nil {
		v.client, v.sum = nil, sumOf("") // whoever sent this, it was not our page
		v.page(f, nil)
		return
	}
	what := v.form.Get("do")
	if what == "key" {
		v.enter()
		return
	}
	if f := v.identify(); f != nil || v.client == nil {
		if f == nil {
			f = failBadKey
		}
		v.page(f, nil)
		return
	}
	switch what {
	case "open":
		notice, f := v.openHere(v.form.Get("address"))
		v.log(f, time.Since(start))
		v.page(f, func(shown *view) { shown.Notice = notice })
	case "close":
		v.page(v.close(v.form.Get("for")), nil)
	case "forget":
		v.forget()
	default:
		v.page(failForm, nil)
	}
}

// enter has the browser keep a key that is right.
func (v *visit) enter() {
	key := strings.TrimSpace(v.form.Get("key"))
	v.sum = sumOf(key)
	f := v.identify()
	if f == nil && v.client == nil {
		f = failBadKey
	}
	if f == nil && !fitsCookie(key) {
		f = failCookie
	}
	if f != nil {
		v.page(f, nil)
		return
	}
	setKey(v.w, v.r, key)
	v.home("")
}

// home sends the browser to the page, so that reloading does not send a form again.
// The mark is for the page's script.
func (v *visit) home(mark string) {
	v.w.Header().Set("Cache-Control", "no-store")
	v.w.Header().Set("Location", "./"+mark)
	v.w.WriteHeader(http.StatusSeeOther)
}

// openHere opens what the client may, for the address that it comes from or another
// one.
func (v *visit) openHere(address string) (notice string, f *failure) {
	var asked int64
	if text := v.form.Get("ttl"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 || n > maxTTL {
			return "", v.account(failTTL)
		}
		asked = n
	}
	o := order{ttl: asked}
	if address = strings.TrimSpace(address); address != "" {
		network, err := parseNetwork(address)
		if err != nil || len(address) > maxAddress {
			return "", v.account(failAddress)
		}
		if network != knockcore.AddrPrefix(v.source) {
			o.address, o.network = address, network
		}
	}
	// Opening again never makes it shorter.
	if length(v.client, asked) > 0 {
		for _, g := range v.own() {
			if left := g.Remaining(v.gate.Now()); left > length(v.client, o.ttl) {
				o.ttl = int64((left + time.Second - 1) / time.Second)
			}
		}
	}
	v.read = func(*http.Request) (order, *failure) { return o, nil }
	v.client, v.told, v.err = nil, false, nil
	if _, f = v.run(); f != nil {
		return "", f
	}
	if asked > 0 {
		notice = v.capped(time.Duration(asked) * time.Second)
	}
	return notice, nil
}

// close ends what the client opened with this key: for one address, or all.
func (v *visit) close(address string) *failure {
	var f *failure
	for _, g := range v.own() {
		if address != "" && addressText(g) != address || !slices.Contains(v.reachable(), v.gate.Service(g.Service)) {
			continue
		}
		if _, err := v.gate.Revoke(v.r.Context(), g.ID, "closed by the client"); err != nil {
			f = failClose
		}
	}
	return f
}

// forget takes the key from the browser; one that belongs to this device alone is
// revoked.
func (v *visit) forget() {
	if v.device != "" {
		if _, err := v.h.app.RemoveDevices(v.r.Context(), func(d device.Device) bool { return d.ID == v.device }); err != nil {
			v.page(failInternal, nil)
			return
		}
	} else if f := v.close(""); f != nil {
		v.page(f, nil)
		return
	}
	setKey(v.w, v.r, "")
	v.home("")
}

// serveAlso opens for the address under another name of the page. It is what a
// ticket from the page says, whose cookie does not come here.
func (h *Handler) serveAlso(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "no-store")
	v := h.visit(w, r)
	f := v.prepare()
	if f == nil {
		f = v.readForm()
	}
	if f == nil {
		v.sum = readTicket(v.form.Get("ticket"), time.Now())
		if f = v.identifyTicket(); f == nil {
			_, f = v.openHere("")
		}
		v.log(f, time.Since(start))
	}
	if f != nil {
		writeJSON(w, f.status, errorBody{f.forPeople()})
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Address netip.Addr `json:"address"`
	}{v.source})
}

// identifyTicket is identify for tickets: one that is too old is nobody's attack.
func (v *visit) identifyTicket() *failure {
	if v.sum == sumOf("") {
		return failBadKey
	}
	return v.identify()
}
