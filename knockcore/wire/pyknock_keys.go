// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// PyknockKeys are the pyknock keys of all clients, ready for use. They are
// immutable and safe for concurrent use.
type PyknockKeys struct{ keys []pyknockKey }

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
	if err := checkPyknock(now, window, b); err != nil {
		return nil, nil, err
	}
	s.Buf = append(s.Buf[:0], b[pyknockMACLen:]...)
	var client *knockcore.Client
	for i := range k.keys {
		key := &k.keys[i]
		if subtle.ConstantTimeCompare(key.mac.Sum(s, s.Buf)[:], b[:pyknockMACLen]) == 1 && client == nil {
			client = key.client
		}
	}
	if client == nil {
		return nil, nil, knockcore.ReasonUnknownClient
	}
	p, err := decodePyknock(b, client.ID)
	if err != nil {
		return nil, nil, err
	}
	return p, client, nil
}

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
