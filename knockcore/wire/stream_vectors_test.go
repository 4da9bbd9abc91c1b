// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// feed checks buf whole and byte by byte, requires that both agree and that Need
// was kept, and returns the verdict.
func feed(tb testing.TB, config *StreamConfig, ring *knockcore.Keyring, port uint16, buf []byte) Verdict {
	tb.Helper()
	whole := config.NewStream(ring, port)
	want := whole.Check(buf)
	got, at := feedBytewise(tb, config, ring, port, buf)
	if !reflect.DeepEqual(got, want) {
		tb.Errorf("byte by byte %+v (at byte %d), whole %+v", got, at, want)
	}
	if again := whole.Check(buf); !reflect.DeepEqual(again, want) {
		tb.Errorf("second call %+v, first %+v", again, want)
	}
	if want.State == NeedMore && (want.Need <= len(buf) || want.Need > whole.MaxNeed()) {
		tb.Errorf("with %d bytes, needs %d of at most %d", len(buf), want.Need, whole.MaxNeed())
	}
	return want
}

// feedBytewise returns the verdict, and after how many bytes it was final.
func feedBytewise(tb testing.TB, config *StreamConfig, ring *knockcore.Keyring, port uint16, buf []byte) (v Verdict, at int) {
	tb.Helper()
	stream := config.NewStream(ring, port)
	for n := 0; n <= len(buf); n++ {
		need := v.Need
		v = stream.Check(slices.Clone(buf[:n])) // a buffer of its own: nothing may be kept, nothing read behind it
		if n < need && (v.State != NeedMore || v.Need < need) {
			tb.Errorf("verdict %+v at byte %d, needed %d", v, n, need)
		}
		if v.State != NeedMore {
			return v, n
		}
	}
	return v, len(buf)
}

func (s *tcpServer) config(tb testing.TB) *StreamConfig {
	tb.Helper()
	c := &StreamConfig{HintNone: s.HintMode == "none", Buckets: s.Buckets, MaxFrame: s.MaxFrame, MaxAttempts: s.MaxAttempts}
	for _, name := range s.Accept {
		m, err := knockcore.ParseMethod(name)
		if err != nil {
			tb.Fatal(err)
		}
		c.Methods |= knockcore.NewMethodSet(m)
	}
	return c
}

func (s *tcpServer) keyring(tb testing.TB) *knockcore.Keyring {
	tb.Helper()
	creds := make([]*knockcore.Credential, len(s.Clients))
	for i, c := range s.Clients {
		creds[i] = testCredential(c.ID, c.Secret)
	}
	return testKeyring(tb, creds...)
}

func TestStreamPositiveVectors(t *testing.T) {
	vectors := loadTCPVectors(t)
	for _, v := range slices.Concat(vectors.V1, vectors.V2) {
		t.Run(v.Name, func(t *testing.T) {
			if v.tooLong() {
				t.Skip("the keyring takes no ID of more than 255 bytes; TestFrameVectors opens this one")
			}
			server := &v.Expect.Server
			config, ring := server.config(t), server.keyring(t)
			if err := config.Validate(ring); err != nil {
				t.Fatal(err)
			}
			got := feed(t, config, ring, server.Port, append(slices.Clone(v.Wire), "application"...))
			if got.State != Authentic || got.Credential.Client.ID != v.ClientID {
				t.Fatalf("verdict %+v", got)
			}
			want := v.frame()
			want.Hint, want.Size = v.hint(), len(v.Wire)
			checkSame(t, got.Frame, want)
			checkProof(t, got.Frame, got.Credential, v.Expect.Proof)

			frame, cred, err := OpenTCPFrame(ring, want.Method, v.Port, want.HintNone, v.Wire)
			if err != nil || cred.Client.ID != v.ClientID {
				t.Fatalf("opened for %v, error %v", cred, err)
			}
			checkSame(t, frame, want)
		})
	}
}

// layerVerdicts says what this layer makes of libknock's classes. Those with
// Authentic are refused later, by the gatekeeper or the handler, which
// serverModel stands for.
var layerVerdicts = map[string]Verdict{
	"ok":                  {State: Authentic},
	"unsupported_version": {State: Foreign, Reason: knockcore.ReasonUnknownClient}, // v1 only: no frame at all
	"unsupported_flags":   {State: Foreign, Reason: knockcore.ReasonUnsupported},
	"invalid_frame":       {State: Foreign, Reason: knockcore.ReasonMalformed},
	"frame_too_large":     {State: Foreign, Reason: knockcore.ReasonMalformed},
	"unknown_client":      {State: Foreign, Reason: knockcore.ReasonUnknownClient},
	"auth_failed":         {State: Foreign, Reason: knockcore.ReasonAuthFailed, ClientID: "client-001"},
	"too_many_candidates": {State: Foreign, Reason: knockcore.ReasonAuthFailed, ClientID: "client-001"},
	"replay":              {State: Foreign, Reason: knockcore.ReasonReplay}, // by StreamConfig.Seen, before anything is decrypted
	"time_skew":           {State: Authentic},                               // the gatekeeper has the clock
	"knock_required":      {State: Authentic},                               // and the sessions
	// Whether proofs are offered is the server's policy: this layer says that one
	// is wanted and makes it.
	"server_proof_required": {State: Authentic},
}

// layerExceptions are entries that libknock's class does not tell apart.
var layerExceptions = map[string]Verdict{
	"v1-inner-port-differs": {State: Foreign, Reason: knockcore.ReasonWrongPort, ClientID: "client-001"},
	"v2-inner-port-differs": {State: Foreign, Reason: knockcore.ReasonWrongPort, ClientID: "client-001"},
	"v1-wrong-client-id":    {State: Foreign, Reason: knockcore.ReasonAuthFailed, ClientID: "client-001-x"},
	"v2-wrong-client-id":    {State: Foreign, Reason: knockcore.ReasonAuthFailed, ClientID: "client-001-x"},
	// In hint mode none nothing tells a bad frame from random bytes.
	"v2-routehint-to-none-server": {State: Foreign, Reason: knockcore.ReasonUnknownClient},
	"v2-none-wrong-secret-512":    {State: Foreign, Reason: knockcore.ReasonUnknownClient},
	// Nonces are remembered by the gatekeeper.
	"v1-replay-cache-full": {State: Authentic},

	// libknock calls a frame that never becomes complete auth_failed when its time
	// is up. Here it stays incomplete, and whoever reads has the time limit.
	"v1-sealedlen-plus1":      {State: NeedMore, Need: 76},
	"v1-truncated-header-28":  {State: NeedMore, Need: 29},
	"v1-truncated-body":       {State: NeedMore, Need: 75},
	"v1-five-bytes":           {State: NeedMore, Need: 29},
	"v2-ciphertext-bit-128":   {State: NeedMore, Need: 192},
	"v2-truncated-31":         {State: NeedMore, Need: 32},
	"v2-truncated-127":        {State: NeedMore, Need: 128},
	"v2-only-prefix-and-hint": {State: NeedMore, Need: 128},
	"v2-bucket-stripped":      {State: NeedMore, Need: 192},
}

// policyDiffers are entries of server policy, not of the wire format, that this
// package cannot refuse: whoever answers decides whether to give a proof.
var policyDiffers = []string{"v1-proof-not-offered", "v2-proof-not-offered"}

func TestStreamNegativeVectors(t *testing.T) {
	accepted := 0
	for _, v := range loadTCPVectors(t).Negative {
		t.Run(v.Name, func(t *testing.T) {
			ring, config := v.Server.keyring(t), v.Server.config(t)
			err := config.Validate(ring)
			if tooBroad := v.Outcome.Class == "hint_mode_none_too_broad"; tooBroad != (err != nil) {
				t.Fatalf("configuration: %v", err)
			} else if tooBroad {
				return
			}
			model := newServerModel(&v.Server, config)
			if v.Prior != nil {
				model.connect(feed(t, config, ring, v.Server.Port, v.Prior))
			}
			var verdict Verdict
			ok := false
			for range v.Times {
				verdict = feed(t, config, ring, v.Server.Port, v.Wire)
				ok = model.connect(verdict)
			}
			checkLayer(t, &v, verdict)
			if slices.Contains(policyDiffers, v.Name) {
				if verdict.State != Authentic || !verdict.Frame.WantProof {
					t.Errorf("verdict %+v, want a frame that asks for a proof", verdict)
				}
				return
			}
			if ok != (v.Outcome.Result == "accept") {
				t.Fatalf("accepted %v, libknock: %s", ok, v.Outcome.Class)
			}
			if ok {
				accepted++
				if left := v.Wire[verdict.Frame.Size:]; !bytes.Equal(left, v.Outcome.Left) || verdict.Credential.Client.ID != v.Outcome.ClientID {
					t.Errorf("client %s, left %x", verdict.Credential.Client.ID, []byte(left))
				}
			}
		})
	}
	if accepted == 0 {
		t.Error("no control was accepted")
	}
}

func checkLayer(t *testing.T, v *tcpNegative, got Verdict) {
	t.Helper()
	want, found := layerExceptions[v.Name]
	if !found {
		want, found = layerVerdicts[v.Outcome.Class]
	}
	got.Frame, got.Credential = nil, nil
	if !found || got != want {
		t.Errorf("verdict %+v, want %+v (class %s)", got, want, v.Outcome.Class)
	}
	if got.ClientID != "" && !strings.HasPrefix(got.ClientID, "client-001") {
		t.Errorf("failure counted for %s", got.ClientID)
	}
}

// serverModel is the least that stands behind this layer: the time window, the
// nonces and one knock session.
type serverModel struct {
	*tcpServer
	nonces map[knockcore.ReplayKey]bool
	uses   int
}

func newServerModel(s *tcpServer, config *StreamConfig) *serverModel {
	m := &serverModel{tcpServer: s, nonces: map[knockcore.ReplayKey]bool{}, uses: s.StoredUses}
	config.Seen = func(key knockcore.ReplayKey) bool { return m.nonces[key] }
	return m
}

// connect goes on where Check ends and reports whether the client is let in.
func (m *serverModel) connect(v Verdict) bool {
	if v.State != Authentic {
		return false
	}
	if age := m.Now - v.Frame.Time; age > m.Window || age < -m.Window {
		return false
	}
	id := v.Credential.Client.ID
	key := knockcore.NewReplayKey(knockcore.ReplayTCP, id, v.Frame.ReplayNonce())
	if m.nonces[key] || m.ReplayLimit > 0 && len(m.nonces) >= m.ReplayLimit {
		return false
	}
	m.nonces[key] = true
	if !m.RequireKnock {
		return true
	}
	if m.uses == 0 || m.StoredClient != id || m.StoredPort != v.Frame.Port || m.StoredAge > m.StoredTTL ||
		m.StoredSession != nil && !bytes.Equal(m.StoredSession, v.Frame.Session) {
		return false
	}
	m.uses--
	return true
}
