// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// cookieAge is how long a browser keeps the key without a visit: what browsers grant
// at most.
const cookieAge = 400 * 24 * time.Hour

// cookieName is the name of the cookie with the key. Browsers hold cookies with such
// prefixes to what they promise: set by this host over HTTPS and, at /, for no other
// host.
func cookieName(base string) string {
	if base == "/" {
		return "__Host-knock"
	}
	return "__Secure-knock"
}

// keyOf is the key in the request's cookie, "" if there is none.
func keyOf(r *http.Request) string {
	c, err := r.Cookie(cookieName(base(r)))
	if err != nil {
		return ""
	}
	return c.Value
}

// setKey has the browser keep a key, or forget it if it is "".
func setKey(w http.ResponseWriter, r *http.Request, key string) {
	c := &http.Cookie{
		Name: cookieName(base(r)), Value: key, Path: base(r), MaxAge: int(cookieAge / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
	if key == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// fitsCookie reports whether a key can be kept as it is.
func fitsCookie(key string) bool {
	return key != "" && len(key) <= 1024 && !strings.ContainsFunc(key, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\",;\\", r)
	})
}

// isOwn reports whether a request comes from our page, so that a cookie in it says
// what its user wants. Browsers that say nothing about that are refused.
func isOwn(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin":
		return true
	case "":
		origin, err := url.Parse(r.Header.Get("Origin"))
		return err == nil && origin.Scheme == "https" && origin.Host != "" && strings.EqualFold(origin.Host, r.Host)
	default:
		return false
	}
}

// ticketLife is how long a ticket is good.
const ticketLife = time.Minute

// tickets seals what is only for ourselves. The key lives as long as the process.
var tickets = sync.OnceValue(func() cipher.AEAD {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: see crypto/rand
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the length is right
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
})

// newTicket makes what the page shows under its other names, whose cookies are not
// ours: it stands for the key, to open for the address that it comes from, for a
// minute.
func newTicket(sum [sha256.Size]byte, now time.Time) string {
	plain := binary.BigEndian.AppendUint64(sum[:], uint64(now.Add(ticketLife).UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(tickets().Seal(nil, nil, plain, nil))
}

// readTicket returns the sum of the key that a ticket stands for, zero if it is not
// good.
func readTicket(text string, now time.Time) (sum [sha256.Size]byte) {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return sum
	}
	plain, err := tickets().Open(nil, nil, sealed, nil)
	if err != nil || len(plain) != len(sum)+8 || now.UnixMilli() >= int64(binary.BigEndian.Uint64(plain[len(sum):])) {
		return sum
	}
	copy(sum[:], plain)
	return sum
}

// tagOf tells versions of a file apart.
func tagOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}
