// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/device"
)

var failInvite = &failure{http.StatusForbidden, "This invitation was used already, is too old, or is not from here. Ask for another one.", knockcore.ReasonAuthFailed}

// joinBody is what a program gets that redeems an invitation.
type joinBody struct {
	Client string `json:"client"`
	Device string `json:"device"`
	Key    string `json:"key"`
}

// serveJoin shows the page for invitations. Looking at it uses nothing up, so that
// previews of links do no harm; the token stands where servers don't see it.
func (h *Handler) serveJoin(w http.ResponseWriter, r *http.Request) {
	shown := h.newView(r)
	shown.Join = true
	if !isSecure(r) {
		shown.Error = failInsecure.text
	}
	h.render(w, http.StatusOK, shown)
}

// serveJoinPost redeems an invitation: for the browser that sends the form of the
// page, which then keeps the key and opens, or for a program that sends JSON. Other
// sites can send neither.
func (h *Handler) serveJoinPost(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	program := isJSON(r.Header.Get("Content-Type"))
	v := h.visit(w, r)
	v.sum = sumOf("")
	dev, key, f := v.redeem(program)
	if f != nil {
		h.logger.Info("invitation was not redeemed", zap.Stringer("client_ip", v.source), zap.String("reason", f.reason.String()))
		if program {
			w.Header().Set("Cache-Control", "no-store")
			writeJSON(w, f.status, errorBody{f.forPeople()})
			return
		}
		shown := h.newView(r)
		shown.Join, shown.Error = true, f.forPeople()
		h.render(w, f.status, shown)
		return
	}
	if program {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, joinBody{dev.Client, dev.ID, string(key.Bytes())})
		return
	}
	setKey(w, r, string(key.Bytes()))
	// It is in by the same tap. If that fails, the page says why when it is used.
	v.sum = sumOf(string(key.Bytes()))
	if v.identify() == nil && v.client != nil {
		_, f := v.openHere("")
		v.log(f, time.Since(start))
	}
	v.home("#joined")
}

// redeem reads the token and uses it up.
func (v *visit) redeem(program bool) (dev device.Device, key knockcore.Secret, f *failure) {
	if f = v.prepare(); f != nil {
		return dev, key, f
	}
	switch {
	case !isSecure(v.r):
		return dev, key, failInsecure
	case !program && !isOwn(v.r):
		return dev, key, failForeign
	}
	var token, name string
	if program {
		token, name, f = v.readJoin()
	} else if f = v.readForm(); f == nil {
		token, name = v.form.Get("token"), v.form.Get("name")
	}
	if f != nil {
		return dev, key, v.account(f)
	}
	if v.exhausted() {
		v.h.limits.delay(v.r.Context())
	}
	dev, key, err := v.h.app.Redeem(v.r.Context(), token, name)
	switch {
	case errors.Is(err, device.ErrInvite):
		v.gate.Failed(knockcore.MethodHTTP, v.source)
		return dev, key, v.account(failInvite)
	case err != nil:
		v.h.logger.Error("invitation can't be redeemed", zap.Error(err))
		return dev, key, failInternal
	}
	return dev, key, nil
}

// readJoin reads what a program sends.
func (v *visit) readJoin() (token, name string, f *failure) {
	_ = http.NewResponseController(v.w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(io.LimitReader(v.r.Body, maxBody+1))
	if len(body) > maxBody {
		return "", "", failTooLarge
	}
	var order struct {
		Token string `json:"token"`
		Name  string `json:"name"`
	}
	if err != nil || json.Unmarshal(body, &order) != nil {
		return "", "", failMalformed
	}
	return order.Token, order.Name, nil
}
