// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// tcpHMAC is for the sender's side and for proofs. It uses the secret and not
// the credential's MAC, so that a credential made by hand will do.
func tcpHMAC(cred *knockcore.Credential, msg []byte) [sha256.Size]byte {
	s := knockcore.GetMACScratch()
	defer s.Free()
	return *s.SumWith(cred.Secret.Bytes(), msg)
}

func tcpIDHash(cred *knockcore.Credential) []byte {
	sum := tcpHMAC(cred, []byte(tcpIDLabel+cred.Client.ID))
	return sum[:tcpIDHashLen]
}

func tcpIDFits(cred *knockcore.Credential, idHash []byte) bool {
	return subtle.ConstantTimeCompare(tcpIDHash(cred), idHash) == 1
}

func tcpKey(cred *knockcore.Credential, salt []byte, info string) []byte {
	s := knockcore.GetMACScratch()
	defer s.Free()
	return bytes.Clone(s.HKDF(cred.Secret.Bytes(), salt, info)[:])
}

func tcpSeal(dst, key, nonce, plain, aad []byte) []byte {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil { // only for keys of a wrong length
		panic("wire: XChaCha20-Poly1305: " + err.Error())
	}
	return aead.Seal(dst, nonce, plain, aad)
}

func tcpOpen(key, nonce, sealed, aad []byte) (plain []byte, ok bool) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil { // only for keys of a wrong length
		panic("wire: XChaCha20-Poly1305: " + err.Error())
	}
	plain, err = aead.Open(nil, nonce, sealed, aad)
	return plain, err == nil
}

func tcpRefuse(reason knockcore.Reason, format string, args ...any) error {
	return &knockcore.Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
