// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	// fwknopMarker begins every decoded packet, fwknopPrefix is what its first 60
	// bits look like in base64: the characters that are not sent.
	fwknopMarker  = "Salted__"
	fwknopPrefix  = "U2FsdGVkX1"
	fwknopSaltLen = 8
	fwknopHeader  = len(fwknopMarker) + fwknopSaltLen

	// fwknopMinPlain is the least length of the plaintext (section 2.3).
	fwknopMinPlain = 36
)

// fwknopBase64 is unpadded base64 that takes each value in one spelling only.
var fwknopBase64 = base64.RawStdEncoding.Strict()

// fwknopDigest is a digest algorithm of section 1.3, for HMACs and for the
// digest inside the packet.
type fwknopDigest struct {
	name string
	new  func() hash.Hash
	size int // bytes
}

// fwknopDigests holds SHA-2 before SHA-3 of the same length: the order in which
// they are tried. MD5 and SHA-1 are what some clients are set to; HMACs with
// them are not known to be forgeable.
var fwknopDigests = [...]fwknopDigest{
	{"md5", md5.New, md5.Size},
	{"sha1", sha1.New, sha1.Size},
	{"sha256", sha256.New, sha256.Size},
	{"sha384", sha512.New384, sha512.Size384},
	{"sha512", sha512.New, sha512.Size},
	{"sha3_256", func() hash.Hash { return sha3.New256() }, 32},
	{"sha3_512", func() hash.Hash { return sha3.New512() }, 64},
}

const (
	fwknopSHA256     = 2 // index into fwknopDigests
	fwknopMaxHashLen = 64
)

// textLen is the length of a value in unpadded base64.
func (d *fwknopDigest) textLen() int { return fwknopBase64.EncodedLen(d.size) }

// sumText is the digest of text in unpadded base64.
func (d *fwknopDigest) sumText(text []byte) string {
	h := d.new()
	h.Write(text)
	return fwknopBase64.EncodeToString(h.Sum(nil))
}

// findFwknopDigest finds a digest by name, "" being sha256; -1 if there is none.
func findFwknopDigest(name string) int {
	if name == "" {
		return fwknopSHA256
	}
	for i := range fwknopDigests {
		if fwknopDigests[i].name == name {
			return i
		}
	}
	return -1
}

// fwknopCipher derives AES-256 key and IV (section 1.1 step 4): OpenSSL's old
// derivation from MD5. It is the protocol's, not a choice.
func fwknopCipher(key knockcore.Secret, salt []byte) (block cipher.Block, iv []byte, err error) {
	var out []byte
	var last []byte
	for len(out) < 32+aes.BlockSize {
		h := md5.New()
		h.Write(last)
		h.Write(key.Bytes())
		h.Write(salt)
		last = h.Sum(nil)
		out = append(out, last...)
	}
	block, err = aes.NewCipher(out[:32])
	return block, out[32:], err
}

// fwknopDecrypt takes marker, salt and ciphertext apart, decrypts in CBC mode
// and removes the padding, which must be exact. Only authentic packets come
// here, so that its answers are no padding oracle.
func fwknopDecrypt(key knockcore.Secret, raw []byte) ([]byte, error) {
	refuse := func() ([]byte, error) {
		return nil, &knockcore.Refusal{Reason: knockcore.ReasonAuthFailed, Detail: "the HMAC fits, but the packet cannot be decrypted: wrong encryption key, or a mode other than CBC"}
	}
	if len(raw) < fwknopHeader+aes.BlockSize || len(raw)%aes.BlockSize != 0 || string(raw[:len(fwknopMarker)]) != fwknopMarker {
		return refuse()
	}
	block, iv, err := fwknopCipher(key, raw[len(fwknopMarker):fwknopHeader])
	if err != nil {
		return refuse()
	}
	plain := make([]byte, len(raw)-fwknopHeader)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, raw[fwknopHeader:])
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize {
		return refuse()
	}
	for _, c := range plain[len(plain)-pad:] {
		if int(c) != pad {
			return refuse()
		}
	}
	return plain[:len(plain)-pad], nil
}

// Seal builds the packet: AES-256 in CBC mode, HMAC of the keys' type, base64
// without padding, constant prefix removed. It fails if the keys are not valid,
// a field is out of its bounds, or the packet would not fit into the 399
// characters that servers take.
func (f *Fwknop) Seal(keys knockcore.FwknopKeys) ([]byte, error) {
	var salt [fwknopSaltLen]byte
	_, _ = rand.Read(salt[:]) // never fails
	return f.seal(keys, salt)
}

func (f *Fwknop) seal(keys knockcore.FwknopKeys, salt [fwknopSaltLen]byte) ([]byte, error) {
	if err := ValidateFwknopKeys(keys); err != nil {
		return nil, err
	}
	digest := findFwknopDigest(f.DigestType)
	if digest < 0 {
		return nil, errors.New("fwknop: unknown digest type")
	}
	plain, err := f.encodeFields()
	if err != nil {
		return nil, fmt.Errorf("fwknop: %w", err)
	}
	plain = append(append(plain, ':'), fwknopDigests[digest].sumText(plain)...)
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	for range pad {
		plain = append(plain, byte(pad))
	}
	block, iv, err := fwknopCipher(keys.Encryption, salt[:])
	if err != nil {
		return nil, fmt.Errorf("fwknop: %w", err)
	}
	raw := append([]byte(fwknopMarker), salt[:]...)
	raw = append(raw, plain...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(raw[fwknopHeader:], plain)

	full := fwknopBase64.AppendEncode(nil, raw)
	mac := hmac.New(fwknopDigests[findFwknopDigest(keys.HMACType)].new, keys.HMAC.Bytes())
	mac.Write(full)
	packet := fwknopBase64.AppendEncode(full[len(fwknopPrefix):], mac.Sum(nil))
	if len(packet) > fwknopMaxLen {
		return nil, fmt.Errorf("fwknop: the packet has %d characters, servers take %d: ask for fewer ports", len(packet), fwknopMaxLen)
	}
	return packet, nil
}
