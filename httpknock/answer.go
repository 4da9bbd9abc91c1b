// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// failure is an answer to a knock that opened nothing. The texts are Knocker's:
// its clients show them, and scripts look for them.
type failure struct {
	status int
	text   string
	reason knockcore.Reason
}

// The failures. (knocker-http.md section 3)
var (
	failNoAddress     = &failure{http.StatusBadRequest, "Could not determine client IP.", knockcore.ReasonMalformed}
	failMalformed     = &failure{http.StatusBadRequest, "Malformed JSON request body.", knockcore.ReasonMalformed}
	failNotObject     = &failure{http.StatusBadRequest, "Request body must be a JSON object.", knockcore.ReasonMalformed}
	failTTL           = &failure{http.StatusBadRequest, "Invalid TTL specified. Must be a positive integer.", knockcore.ReasonMalformed}
	failAddressLength = &failure{http.StatusBadRequest, "IP address or CIDR notation too long.", knockcore.ReasonMalformed}
	failAddress       = &failure{http.StatusBadRequest, "Invalid IP address or CIDR notation in request body.", knockcore.ReasonMalformed}
	failUnknownMember = &failure{http.StatusBadRequest, "Invalid request data.", knockcore.ReasonMalformed}
	failTooWide       = &failure{http.StatusBadRequest, "CIDR range too broad. Maximum 65536 addresses allowed.", knockcore.ReasonForbidden}
	failWiderThanKey  = &failure{http.StatusBadRequest, "CIDR range too broad for this API key.", knockcore.ReasonForbidden}
	failTTLTooLarge   = &failure{http.StatusBadRequest, "TTL too large. Maximum allowed is 315360000 seconds (10 years).", knockcore.ReasonMalformed}
	failNoKey         = &failure{http.StatusUnauthorized, textKey, knockcore.ReasonUnknownClient}
	failKey           = &failure{http.StatusUnauthorized, textKey, knockcore.ReasonAuthFailed}
	failRemote        = &failure{http.StatusForbidden, "API key lacks remote whitelist permission.", knockcore.ReasonForbidden}
	failService       = &failure{http.StatusForbidden, "API key lacks permission for every service here.", knockcore.ReasonForbidden}
	failTooLarge      = &failure{http.StatusRequestEntityTooLarge, "Request body too large.", knockcore.ReasonMalformed}
	failMediaType     = &failure{http.StatusUnsupportedMediaType, "Request body must be JSON.", knockcore.ReasonMalformed}
	failEarly         = &failure{http.StatusTooEarly, "Knock again when the TLS handshake is complete.", knockcore.ReasonUnsupported}
	failTooMany       = &failure{http.StatusTooManyRequests, "Too many knock attempts.", knockcore.ReasonLimited}
	failInternal      = &failure{http.StatusInternalServerError, "Internal server error: whitelist persistence or firewall configuration failed.", knockcore.ReasonFirewallError}
	failFull          = &failure{http.StatusServiceUnavailable, "Firewall mutation capacity is unavailable.", knockcore.ReasonLimited}
	failStarting      = &failure{http.StatusServiceUnavailable, "Not ready yet.", knockcore.ReasonStoreError}
	textKey           = "Invalid or missing API key."
	textNotAllowed    = "Method Not Allowed"
	errorOfAdmit      = map[knockcore.Reason]*failure{
		knockcore.ReasonLimited: failFull, knockcore.ReasonFirewallError: failInternal, knockcore.ReasonStoreError: failInternal,
	}
)

// errorBody is the body of a failure.
type errorBody struct {
	Error string `json:"error"`
}

// knockBody is the body of a knock that opened something.
type knockBody struct {
	Entry     string `json:"whitelisted_entry"`
	ExpiresAt int64  `json:"expires_at"`
	ExpiresIn int64  `json:"expires_in_seconds"`
}

// healthBody is the body of an answer about health.
type healthBody struct {
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

// writeJSON answers with a JSON document, in one piece and without a line end.
func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // plain structs
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
