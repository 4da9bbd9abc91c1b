// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxBody bounds the body of a knock, in bytes.
	maxBody = 4096
	// maxTTL is the longest that a knock may ask for, in seconds: ten years.
	maxTTL = 315_360_000
	// maxAddress bounds ip_address, in characters.
	maxAddress = 100
)

// bodyTimeout is how long a body may take to arrive; tests are less patient.
var bodyTimeout = 10 * time.Second

// order is what the body of a knock asks for.
type order struct {
	// ttl is in seconds, 0 if it doesn't say, maxTTL+1 for anything longer.
	ttl int64
	// address is the text of ip_address, "" if it is absent, and network what it
	// means.
	address string
	network netip.Prefix
}

// readOrder reads the body of a request. (knocker-http.md sections 2 and 3)
func readOrder(r *http.Request) (o order, f *failure) {
	if r.ContentLength > maxBody {
		return o, failTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case len(body) > maxBody:
		return o, failTooLarge
	case errors.As(err, new(*http.MaxBytesError)): // a smaller limit of request_body
		return o, failTooLarge
	case err != nil:
		return o, failMalformed
	case len(body) == 0:
		return o, nil
	case !isJSON(r.Header.Get("Content-Type")):
		return o, failMediaType
	}
	return parseOrder(body)
}

// isJSON reports whether the media type is application/json; parameters don't
// matter, not even broken ones.
func isJSON(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		mediaType, _, _ = strings.Cut(contentType, ";")
		mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	}
	return mediaType == "application/json"
}

func parseOrder(body []byte) (o order, f *failure) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if !utf8.Valid(body) {
		return o, failMalformed
	}
	body = withoutNaN(body)
	if !json.Valid(body) {
		return o, failMalformed
	}
	if body = bytes.TrimLeft(body, " \t\r\n"); body[0] != '{' {
		return o, failNotObject
	}
	// A map, because the names of struct fields would match in any case.
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return o, failMalformed
	}
	ttl, address := members["ttl"], members["ip_address"]
	delete(members, "ttl")
	delete(members, "ip_address")
	if o.ttl, f = parseTTL(ttl); f != nil {
		return o, f
	}
	if f = o.parseAddress(address); f != nil {
		return o, f
	}
	if len(members) > 0 {
		return o, failUnknownMember
	}
	return o, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// parseTTL reads a positive integer, without exponent or fraction.
func parseTTL(raw json.RawMessage) (int64, *failure) {
	if isNull(raw) {
		return 0, nil
	}
	digits := string(raw)
	if strings.Trim(digits, "0123456789") != "" || digits == "0" {
		return 0, failTTL
	}
	ttl, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || ttl > maxTTL {
		return maxTTL + 1, nil
	}
	return ttl, nil
}

func (o *order) parseAddress(raw json.RawMessage) *failure {
	if isNull(raw) {
		return nil
	}
	var err error
	if json.Unmarshal(raw, &o.address) != nil {
		return failAddress
	}
	if utf8.RuneCountInString(o.address) > maxAddress {
		return failAddressLength
	}
	if o.network, err = parseNetwork(o.address); err != nil {
		return failAddress
	}
	return nil
}

// withoutNaN puts plain numbers in the place of NaN and Infinity, which some JSON
// writers know: so they are refused as any number that is not a whole one.
func withoutNaN(body []byte) []byte {
	var out []byte
	quoted := false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == 'N' || c == 'I'):
			for _, word := range []string{"NaN", "Infinity"} {
				if bytes.HasPrefix(body[i:], []byte(word)) {
					if out == nil {
						out = bytes.Clone(body)
					}
					copy(out[i:], "0.5000000"[:len(word)])
					i += len(word) - 1
				}
			}
		}
	}
	if out != nil {
		return out
	}
	return body
}
