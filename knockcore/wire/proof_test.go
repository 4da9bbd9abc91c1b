// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

func TestProofVectors(t *testing.T) {
	for _, v := range loadTCPVectors(t).Proofs {
		t.Run(v.Name, func(t *testing.T) {
			method, err := knockcore.ParseMethod(v.Protocol)
			if err != nil {
				t.Fatal(err)
			}
			f := &TCPFrame{Method: method, Port: v.Port, Nonce: v.Nonce}
			copy(f.Hint[:], v.Hint)
			if got := f.VerifyServerProof(testCredential("any", v.Secret), v.Proof); got != (v.Verify == "ok") {
				t.Errorf("verified %v, libknock says %s", got, v.Verify)
			}
		})
	}
}
