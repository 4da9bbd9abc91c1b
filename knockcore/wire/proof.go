// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/subtle"
	"encoding/binary"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// ServerProofLen is the length in bytes of a server proof of either version
// (libknock.md section 4).
const ServerProofLen = 50

const (
	v1ProofLabel = "server-proof-v1"
	v2ProofLabel = "server-proof-v2"
	proofType    = 0x50
	proofEchoLen = 16
)

// ServerProof returns what the server sends to a client that asked for a proof,
// before any byte of the application: version, 0x50, the first 16 bytes of the
// nonce, and the HMAC that only somebody with the secret can make. The frame
// must have been sealed or opened with the credential.
func (f *TCPFrame) ServerProof(cred *knockcore.Credential) [ServerProofLen]byte {
	label, version := v1ProofLabel, byte(0x01)
	if f.Method == knockcore.MethodEnvelopeV2 {
		label, version = v2ProofLabel, 0x02
	}
	msg := make([]byte, 0, len(label)+v2HintEnd+2)
	msg = append(msg, label...)
	msg = append(msg, f.Nonce...)
	msg = append(msg, f.Hint[:]...)
	msg = binary.BigEndian.AppendUint16(msg, f.Port)
	sum := tcpHMAC(cred, msg)

	proof := [ServerProofLen]byte{version, proofType}
	copy(proof[2:2+proofEchoLen], f.Nonce)
	copy(proof[2+proofEchoLen:], sum[:])
	return proof
}

// VerifyServerProof reports in constant time whether proof is the server's
// answer to this frame. Proofs of any length but ServerProofLen are wrong.
func (f *TCPFrame) VerifyServerProof(cred *knockcore.Credential, proof []byte) bool {
	want := f.ServerProof(cred)
	return subtle.ConstantTimeCompare(want[:], proof) == 1
}
