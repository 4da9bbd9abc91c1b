// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"sync"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// ParseFwknopKey reads a fwknop key as configured: "base64:…" (what fwknop calls
// KEY_BASE64 and HMAC_KEY_BASE64), "hex:…", or the bytes of the text itself (KEY
// and HMAC_KEY). Errors never contain any part of the text. See
// ValidateFwknopKeys for the bounds.
func ParseFwknopKey(text string) (knockcore.Secret, error) { return knockcore.ParseSecret(text) }

// ValidateFwknopKeys checks a key pair (fwknop-spa.md section 1.4): an
// encryption key of 1 to 32 bytes, an HMAC key of 1 to 128 bytes that is another
// one, and a known HMAC type. Packets without HMAC are not supported: they can
// be rewritten into new ones that replay checks do not know.
func ValidateFwknopKeys(keys knockcore.FwknopKeys) error {
	switch {
	case keys.Encryption.IsZero() || keys.Encryption.Len() > 32:
		return fmt.Errorf("fwknop encryption key has %d bytes, it must have 1 to 32", keys.Encryption.Len())
	case keys.HMAC.IsZero():
		return errors.New("fwknop needs an HMAC key: packets without HMAC are not accepted")
	case keys.HMAC.Len() > 128:
		return fmt.Errorf("fwknop HMAC key has %d bytes, it must have 1 to 128", keys.HMAC.Len())
	case keys.Encryption.Equal(keys.HMAC):
		return errors.New("fwknop encryption and HMAC key must not be the same")
	case findFwknopDigest(keys.HMACType) < 0:
		return errors.New("unknown fwknop HMAC type; expect md5, sha1, sha256, sha384, sha512, sha3_256 or sha3_512")
	}
	return nil
}

// WeakFwknopKeys reports whether one of the keys is shorter than
// knockcore.MinSecretLen. One captured packet is enough to guess such a key
// offline.
func WeakFwknopKeys(keys knockcore.FwknopKeys) bool {
	return keys.Encryption.Strong() != nil || keys.HMAC.Strong() != nil
}

// FwknopKeys are the fwknop key pairs of all clients, ready for use. They are
// immutable, but for what they remember of addresses, and safe for concurrent use.
type FwknopKeys struct {
	keys     []fwknopKey
	familiar *knockcore.Familiar
}

type fwknopKey struct {
	client     *knockcore.Client // nil in OpenFwknop
	encryption knockcore.Secret
	digest     int           // of the HMAC, index into fwknopDigests
	mac        knockcore.MAC // if digest is fwknopSHA256
	others     *sync.Pool    // of *fwknopHMAC, otherwise
}

// fwknopHMAC is a keyed HMAC with room for its sum.
type fwknopHMAC struct {
	hash.Hash
	sum [fwknopMaxHashLen]byte
}

// NewFwknopKeys prepares the fwknop keys of the keyring's clients. Pairs that
// ValidateFwknopKeys refuses, which the configuration should have done before,
// are left out.
func NewFwknopKeys(k *knockcore.Keyring) *FwknopKeys {
	set := new(FwknopKeys)
	for _, client := range k.Clients() {
		for _, keys := range client.Fwknop {
			if ValidateFwknopKeys(keys) == nil {
				set.keys = append(set.keys, newFwknopKey(client, keys))
			}
		}
	}
	set.familiar = knockcore.NewFamiliar(len(set.keys))
	return set
}

func newFwknopKey(client *knockcore.Client, keys knockcore.FwknopKeys) fwknopKey {
	key := fwknopKey{client: client, encryption: keys.Encryption, digest: findFwknopDigest(keys.HMACType)}
	if key.digest == fwknopSHA256 {
		key.mac = knockcore.NewMAC(keys.HMAC.Bytes())
		return key
	}
	newHash := fwknopDigests[key.digest].new
	key.others = &sync.Pool{New: func() any { return &fwknopHMAC{Hash: hmac.New(newHash, keys.HMAC.Bytes())} }}
	return key
}

// Len is the number of key pairs.
func (k *FwknopKeys) Len() int { return len(k.keys) }

// Format says how many key pairs there are, for every verb.
func (k *FwknopKeys) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("[%d fwknop key pairs]", len(k.keys)))
}

// OpenFwknop reads a packet made with this key pair: shape, HMAC, decryption,
// digest, fields. The error wraps
//
//   - ReasonMalformed: not the shape of a packet (see LooksLikeFwknop), or an
//     authentic packet with a field that is wrong;
//   - ReasonUnknownClient: the HMAC does not fit, also because there is none;
//   - ReasonAuthFailed: the HMAC fits, but decryption, padding or the digest
//     inside is wrong: another encryption key, or a cipher mode other than CBC;
//   - ReasonUnsupported: key pairs without HMAC, message types above 6, IPv6,
//     protocols other than TCP and UDP, and commands. Only for commands the
//     content is returned along with the error.
//
// NAT messages are returned without error: whether there is anything to forward
// to is the caller's to know, as are age, replay, user, address and ports.
func OpenFwknop(keys knockcore.FwknopKeys, b []byte) (*Fwknop, error) {
	if err := ValidateFwknopKeys(keys); err != nil {
		return nil, &knockcore.Refusal{Reason: knockcore.ReasonUnsupported, Detail: err.Error()}
	}
	set := FwknopKeys{keys: []fwknopKey{newFwknopKey(nil, keys)}}
	f, _, err := set.Open(b)
	return f, err
}

// Open reads a packet and finds its client, as OpenFwknop does for one pair. The
// packet names no client, so a packet of the right shape costs one HMAC for each
// pair. Every HMAC is tried, so the time says nothing about which one fits; of
// clients whose pairs both fit, the first by ID is found.
//
// Refusing a packet whose HMAC fits nobody allocates nothing. If one fits, the
// error is a *knockcore.Refusal that names the client. The client is returned
// exactly if the content is.
func (k *FwknopKeys) Open(b []byte) (*Fwknop, *knockcore.Client, error) {
	f, client, _, err := k.OpenFrom(netip.Addr{}, b)
	return f, client, err
}

// OpenFrom is Open for a packet from this address: pairs that were good for an
// admission from there lately (see Admitted) are tried before the others, which
// changes nothing but the cost. pair is the number of the pair.
func (k *FwknopKeys) OpenFrom(source netip.Addr, b []byte) (f *Fwknop, client *knockcore.Client, pair int, err error) {
	if !LooksLikeFwknop(b) {
		return nil, nil, 0, errFwknopShape
	}
	s := knockcore.GetMACScratch()
	defer s.Free()
	// The HMAC covers the prefix that is not sent. Its length depends on its
	// type, which the packet does not tell.
	s.Buf = append(append(s.Buf[:0], fwknopPrefix...), b...)
	var tails [len(fwknopDigests)]fwknopTail
	fits := func(key *fwknopKey) bool {
		tail, digest := &tails[key.digest], &fwknopDigests[key.digest]
		return tail.read(s.Buf, digest) && key.fits(s, s.Buf[:tail.bodyLen], tail.mac[:digest.size])
	}
	open := func(key *fwknopKey) (*Fwknop, error) { return key.open(s.Buf[:tails[key.digest].bodyLen]) }
	for i := range k.familiar.Guesses(source) {
		if key := &k.keys[i]; fits(key) {
			if f, err := open(key); f != nil {
				return f, key.client, i, err
			}
		}
	}
	err = knockcore.ReasonUnknownClient
	for i := range k.keys {
		key := &k.keys[i]
		if !fits(key) || f != nil {
			continue
		}
		opened, refusal := open(key)
		if opened != nil {
			f, client, pair, err = opened, key.client, i, refusal
		} else if knockcore.ReasonOf(err) == knockcore.ReasonUnknownClient {
			err = refusal
		}
	}
	return f, client, pair, err
}

// Admitted tells that a packet of this pair was admitted from the address.
func (k *FwknopKeys) Admitted(source netip.Addr, pair int) { k.familiar.Remember(source, pair) }

// fwknopTail is the HMAC at the end of a packet if it is of one type.
type fwknopTail struct {
	done, ok bool
	bodyLen  int // of the base64 text before it
	mac      [fwknopMaxHashLen]byte
}

// read cuts the HMAC off the text, once. It reports false if what is left cannot
// be a packet, or if the HMAC is not in its one canonical spelling: that is as
// strict as comparing HMACs as text.
func (t *fwknopTail) read(text []byte, d *fwknopDigest) bool {
	if t.done {
		return t.ok
	}
	t.done = true
	t.bodyLen = len(text) - d.textLen()
	raw := fwknopBase64.DecodedLen(t.bodyLen)
	if raw < fwknopHeader+fwknopMinPlain || raw%aes.BlockSize != 0 || fwknopBase64.EncodedLen(raw) != t.bodyLen {
		return false
	}
	_, err := fwknopBase64.Decode(t.mac[:], text[t.bodyLen:])
	t.ok = err == nil
	return t.ok
}

// fits reports whether the HMAC of text is mac, in constant time.
func (k *fwknopKey) fits(s *knockcore.MACScratch, text, mac []byte) bool {
	if k.others == nil {
		return subtle.ConstantTimeCompare(k.mac.Sum(s, text)[:], mac) == 1
	}
	h := k.others.Get().(*fwknopHMAC)
	defer k.others.Put(h)
	h.Reset()
	h.Write(text)
	return subtle.ConstantTimeCompare(h.Sum(h.sum[:0]), mac) == 1
}

// open reads the authentic base64 text of a packet. The error is a fresh
// *knockcore.Refusal that names the client, or nil.
func (k *fwknopKey) open(text []byte) (*Fwknop, error) {
	raw, err := fwknopBase64.AppendDecode(nil, text)
	var f *Fwknop
	if err != nil {
		err = fwknopMalformed("the packet is not in canonical base64")
	} else {
		var plain []byte
		if plain, err = fwknopDecrypt(k.encryption, raw); err == nil {
			f, err = parseFwknopPlain(plain)
		}
	}
	if f != nil {
		f.Canonical = sha256.Sum256(raw[len(fwknopMarker):])
	}
	if refusal := (*knockcore.Refusal)(nil); errors.As(err, &refusal) && k.client != nil {
		refusal.Client = k.client.ID
	}
	return f, err
}
