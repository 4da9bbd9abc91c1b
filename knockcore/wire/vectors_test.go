// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// hexBytes is hexadecimal in JSON; absent and "" are both nil.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if len(b) > 0 {
		*h = b
	}
	return err
}

type tcpVectors struct {
	V1       []tcpPositive `json:"tcp_v1"`
	V2       []tcpPositive `json:"tcp_v2"`
	Proofs   []proofVector `json:"server_proofs"`
	TLVs     []tlvVector   `json:"tlv"`
	Negative []tcpNegative `json:"negative"`
}

type tcpPositive struct {
	Name       string   `json:"name"`
	Secret     hexBytes `json:"secret_hex"`
	ClientID   string   `json:"client_id"`
	Port       uint16   `json:"server_port"`
	Time       int64    `json:"timestamp_ms"`
	Flags      byte     `json:"flags"`
	Method     string   `json:"method"`
	Session    hexBytes `json:"session_id_hex"`
	Extensions hexBytes `json:"extensions_hex"`
	Nonce      hexBytes `json:"nonce_hex"`
	Wire       hexBytes `json:"wire_hex"`

	HintMode      string    `json:"hint_mode"`
	PaddingPolicy string    `json:"padding_policy"`
	Bucket        int       `json:"bucket"`
	Prefix        hexBytes  `json:"prefix_random_hex"`
	Padding       *hexBytes `json:"padding_hex"`

	Expect struct {
		KeyHint     hexBytes  `json:"key_hint_hex"`
		RouteHint   hexBytes  `json:"route_hint_hex"`
		SealedLen   int       `json:"sealed_len"`
		PaddingLen  int       `json:"padding_len"`
		IDHash      hexBytes  `json:"client_id_hash_hex"`
		Key         hexBytes  `json:"aead_key_hex"`
		AEADNonce   hexBytes  `json:"aead_nonce_hex"`
		AAD         hexBytes  `json:"aad_hex"`
		Plain       hexBytes  `json:"plaintext_hex"`
		Proof       hexBytes  `json:"server_proof_hex"`
		ReplayNonce hexBytes  `json:"replay_nonce_hex"`
		Server      tcpServer `json:"server"`
	} `json:"expect"`
	Outcome tcpOutcome `json:"outcome"`
}

type tcpServer struct {
	Clients []struct {
		ID     string   `json:"client_id"`
		Secret hexBytes `json:"secret_hex"`
	} `json:"clients"`
	Port        uint16   `json:"server_port"`
	Now         int64    `json:"now_ms"`
	Window      int64    `json:"time_window_ms"`
	MaxFrame    int      `json:"max_frame_size"`
	Accept      []string `json:"accept_protocols"`
	HintMode    string   `json:"hint_mode"`
	Buckets     []int    `json:"frame_size_buckets"`
	MaxAttempts int      `json:"max_auth_attempts"`
	ReplayLimit int      `json:"replay_cache_limit"`

	RequireKnock  bool     `json:"require_knock"`
	StoredSession hexBytes `json:"stored_session_hex"`
	StoredClient  string   `json:"stored_for_client"`
	StoredPort    uint16   `json:"stored_for_port"`
	StoredAge     int64    `json:"stored_age_ms"`
	StoredTTL     int64    `json:"stored_ttl_ms"`
	StoredUses    int      `json:"stored_uses"`
}

type tcpOutcome struct {
	Result   string   `json:"result"`
	Class    string   `json:"class"`
	ClientID string   `json:"accepted_client_id"`
	Left     hexBytes `json:"bytes_left_for_application_hex"`
}

type tcpNegative struct {
	Name    string     `json:"name"`
	Kind    string     `json:"kind"`
	Server  tcpServer  `json:"server"`
	Prior   hexBytes   `json:"prior_wire_hex"`
	Wire    hexBytes   `json:"wire_hex"`
	Times   int        `json:"send_times"`
	Outcome tcpOutcome `json:"outcome"`
}

type proofVector struct {
	Name     string   `json:"name"`
	Protocol string   `json:"protocol"`
	Secret   hexBytes `json:"secret_hex"`
	Port     uint16   `json:"server_port"`
	Nonce    hexBytes `json:"nonce_or_prefix_hex"`
	Hint     hexBytes `json:"hint_hex"`
	Proof    hexBytes `json:"proof_hex"`
	Verify   string   `json:"verify_class"`
}

type tlvVector struct {
	Name string `json:"name"`
	List []struct {
		Type  uint16   `json:"type"`
		Value hexBytes `json:"value_hex"`
	} `json:"tlvs"`
	Encoded hexBytes `json:"encoded_hex"`
	Decode  string   `json:"decode_class"`
}

var readTCPVectors = sync.OnceValues(func() (*tcpVectors, error) {
	b, err := os.ReadFile("testdata/libknock-tcp.json")
	if err != nil {
		return nil, err
	}
	v := new(tcpVectors)
	return v, json.Unmarshal(b, v)
})

// loadTCPVectors fails if any section is empty.
func loadTCPVectors(tb testing.TB) *tcpVectors {
	tb.Helper()
	v, err := readTCPVectors()
	if err != nil {
		tb.Fatal(err)
	}
	for name, n := range map[string]int{
		"tcp_v1": len(v.V1), "tcp_v2": len(v.V2), "server_proofs": len(v.Proofs), "tlv": len(v.TLVs), "negative": len(v.Negative),
	} {
		if n == 0 {
			tb.Fatalf("no vectors in section %s", name)
		}
	}
	return v
}

// testCredential makes a credential by hand, as senders may do: IDs that a
// keyring refuses are possible too.
func testCredential(id string, secret []byte) *knockcore.Credential {
	s := knockcore.NewSecret(secret)
	return &knockcore.Credential{
		Client: &knockcore.Client{ID: id, Secrets: []knockcore.Secret{s}, AllServices: true},
		Secret: s,
		MAC:    knockcore.NewMAC(secret),
	}
}

func testKeyring(tb testing.TB, creds ...*knockcore.Credential) *knockcore.Keyring {
	tb.Helper()
	clients := make([]*knockcore.Client, len(creds))
	for i, c := range creds {
		clients[i] = c.Client
	}
	k, err := knockcore.NewKeyring(clients)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func (v *tcpPositive) frame() *TCPFrame {
	f := &TCPFrame{
		Method: knockcore.MethodFrameV1, Port: v.Port, Time: v.Time, WantProof: v.Flags == 1,
		KnockMethod: v.Method, Session: v.Session, Extensions: v.Extensions, Nonce: []byte(v.Nonce),
	}
	if v.Prefix != nil {
		f.Method, f.Nonce = knockcore.MethodEnvelopeV2, v.Prefix
		f.HintNone = v.HintMode == "none"
		f.Bucket = v.Bucket
		f.ZeroPadding = v.PaddingPolicy == "none"
		if v.Padding != nil && !f.ZeroPadding {
			f.Padding = append([]byte{}, *v.Padding...)
		}
	}
	return f
}

func (v *tcpPositive) hint() (h [knockcore.HintLen]byte) {
	copy(h[:], v.Expect.KeyHint)
	copy(h[:], v.Expect.RouteHint)
	return h
}

// tooLong reports whether a keyring refuses the ID: ours are limited to 255
// bytes, libknock's to 65535.
func (v *tcpPositive) tooLong() bool {
	err := knockcore.ValidateID(v.ClientID)
	return err != nil && strings.Contains(err.Error(), "1 to 255 bytes")
}
