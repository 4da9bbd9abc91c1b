// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// PyknockKeys are the pyknock keys of all clients, ready for use. They are
// immutable, but for what they remember of addresses, and safe for concurrent use.
type PyknockKeys struct {
	keys     []pyknockKey
	familiar *knockcore.Familiar
}

type pyknockKey struct {
	client *knockcore.Client
	mac    knockcore.MAC
}

// NewPyknockKeys prepares the pyknock keys of the keyring's clients. How strong
// a key must be is for the configuration to check.
func NewPyknockKeys(k *knockcore.Keyring) *PyknockKeys {
	set := new(PyknockKeys)
	for _, client := range k.Clients() {
		for _, psk := range client.Pyknock {
			set.keys = append(set.keys, pyknockKey{client, knockcore.NewMAC(psk.Bytes())})
		}
	}
	set.familiar = knockcore.NewFamiliar(len(set.keys))
	return set
}

// Len is the number of keys.
func (k *PyknockKeys) Len() int { return len(k.keys) }

// Format says how many keys there are, for every verb.
func (k *PyknockKeys) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("[%d pyknock keys]", len(k.keys)))
}

// Open reads a datagram and finds its client, as OpenPyknock does for one key;
// window 0 means the default. The datagram names no client, so a datagram of the
// right length and time costs one HMAC for each key. Every key is tried, so the
// time says nothing about which one fits; of clients that share a key, the first
// by ID is found. Refusing allocates nothing unless a key fits; in that case the
// error is a *knockcore.Refusal that names the client.
func (k *PyknockKeys) Open(now time.Time, window time.Duration, s *knockcore.MACScratch, b []byte) (*Pyknock, *knockcore.Client, error) {
	p, client, _, err := k.OpenFrom(netip.Addr{}, now, window, s, b)
	return p, client, err
}

// OpenFrom is Open for a datagram from this address: keys that were good for an
// admission from there lately (see Admitted) are tried before the others, which
// changes nothing but the cost. key is the number of the key.
func (k *PyknockKeys) OpenFrom(source netip.Addr, now time.Time, window time.Duration, s *knockcore.MACScratch, b []byte) (p *Pyknock, client *knockcore.Client, key int, err error) {
	if err := checkPyknock(now, window, b); err != nil {
		return nil, nil, 0, err
	}
	s.Buf = append(s.Buf[:0], b[pyknockMACLen:]...)
	if key = k.find(source, s, b[:pyknockMACLen]); key < 0 {
		return nil, nil, 0, knockcore.ReasonUnknownClient
	}
	client = k.keys[key].client
	if p, err = decodePyknock(b, client.ID); err != nil {
		return nil, nil, 0, err
	}
	return p, client, key, nil
}

// find returns the first key under which s.Buf has this HMAC, -1 if there is none.
// Of keys that are equal only the first is ever familiar.
func (k *PyknockKeys) find(source netip.Addr, s *knockcore.MACScratch, mac []byte) int {
	fits := func(i int) bool { return subtle.ConstantTimeCompare(k.keys[i].mac.Sum(s, s.Buf)[:], mac) == 1 }
	for i := range k.familiar.Guesses(source) {
		if fits(i) {
			return i
		}
	}
	found := -1
	for i := range k.keys {
		if fits(i) && found < 0 {
			found = i
		}
	}
	return found
}

// Admitted tells that a datagram with this key was admitted from the address.
func (k *PyknockKeys) Admitted(source netip.Addr, key int) { k.familiar.Remember(source, key) }

// ParsePyknockKey reads a pre-shared key as configured: "base64:…" or "hex:…" as
// knockcore.ParseSecret does, otherwise text, which pyknock encodes in latin-1:
// one byte for each character, none above U+00FF (section 1). Errors never
// contain any part of the text.
func ParsePyknockKey(text string) (knockcore.Secret, error) {
	if strings.HasPrefix(text, "base64:") || strings.HasPrefix(text, "hex:") {
		return knockcore.ParseSecret(text)
	}
	key := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			return knockcore.Secret{}, errors.New("pyknock key has a character that latin-1 does not have; write the bytes as base64:… or hex:… instead")
		}
		key = append(key, byte(r))
	}
	return knockcore.NewSecret(key), nil
}
