// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const testPort = 9000

var (
	onlyV1 = knockcore.NewMethodSet(knockcore.MethodFrameV1)
	onlyV2 = knockcore.NewMethodSet(knockcore.MethodEnvelopeV2)
)

func testSecret(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// mustSeal seals a small frame for testPort.
func mustSeal(tb testing.TB, cred *knockcore.Credential, f TCPFrame) []byte {
	tb.Helper()
	if f.Port == 0 {
		f.Port = testPort
	}
	b, err := f.Seal(cred)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func checkVerdict(tb testing.TB, got Verdict, at int, want Verdict, wantAt int) {
	tb.Helper()
	got.Frame, got.Credential = nil, nil
	if got != want || at != wantAt {
		tb.Errorf("verdict %+v at byte %d, want %+v at byte %d", got, at, want, wantAt)
	}
}

// TestStreamDecidesTogether checks the byte at which a stream is decided: the
// same for strangers, for frames accepted before, and for all that can be wrong
// in a header.
func TestStreamDecidesTogether(t *testing.T) {
	cred := testCredential("laptop", testSecret(1))
	ring := testKeyring(t, cred)
	v1 := mustSeal(t, cred, TCPFrame{Method: knockcore.MethodFrameV1})
	v2 := mustSeal(t, cred, TCPFrame{Method: knockcore.MethodEnvelopeV2, Bucket: 128})
	none := mustSeal(t, cred, TCPFrame{Method: knockcore.MethodEnvelopeV2, Bucket: 128, HintNone: true})
	with := func(b []byte, at int, xor byte) []byte {
		b = append(bytes.Clone(b), random(1024-len(b))...)
		b[at] ^= xor
		return b
	}
	unknown := Verdict{State: Foreign, Reason: knockcore.ReasonUnknownClient}
	replay := Verdict{State: Foreign, Reason: knockcore.ReasonReplay}
	failed := Verdict{State: Foreign, Reason: knockcore.ReasonAuthFailed, ClientID: "laptop"}
	malformed := Verdict{State: Foreign, Reason: knockcore.ReasonMalformed}
	unsupported := Verdict{State: Foreign, Reason: knockcore.ReasonUnsupported}
	for name, c := range map[string]struct {
		methods knockcore.MethodSet
		none    bool
		seen    bool
		stream  []byte
		want    Verdict
		at      int
	}{
		"v1 hint of a stranger":  {methods: onlyV1 | onlyV2, stream: with(v1, v1HintAt, 1), want: unknown, at: 29},
		"v1 accepted before":     {methods: onlyV1 | onlyV2, stream: with(v1, 0, 0), seen: true, want: replay, at: 29},
		"v1 before, damaged":     {methods: onlyV1 | onlyV2, stream: with(v1, 70, 1), seen: true, want: replay, at: 29},
		"v1 reserved":            {methods: onlyV1 | onlyV2, stream: with(v1, 2, 1), want: malformed, at: 29},
		"v1 reserved, before":    {methods: onlyV1 | onlyV2, stream: with(v1, 2, 1), seen: true, want: malformed, at: 29},
		"v1 flags":               {methods: onlyV1 | onlyV2, stream: with(v1, 1, 2), want: unsupported, at: 29},
		"v1 length":              {methods: onlyV1 | onlyV2, stream: with(v1, v1LengthAt, 4), want: malformed, at: 29},
		"v1 damaged":             {methods: onlyV1 | onlyV2, stream: with(v1, 70, 1), want: failed, at: 75},
		"v1 accepted":            {methods: onlyV1 | onlyV2, stream: with(v1, 80, 1), want: Verdict{State: Authentic}, at: 75},
		"v1 only, other version": {methods: onlyV1, stream: with(v1, 0, 3), want: unknown, at: 1},
		"v1 only, TLS":           {methods: onlyV1, stream: with([]byte("\x16\x03\x01\x02\x00\x01\x00"), 0, 0), want: unknown, at: 1},
		"v1 only, v2":            {methods: onlyV1, stream: with(v2, 0, 0), want: unknown, at: 1},
		"v2 only, v1":            {methods: onlyV2, stream: with(v1, 0, 0), want: unknown, at: 32},
		"v2 hint of a stranger":  {methods: onlyV1 | onlyV2, stream: with(v2, 31, 1), want: unknown, at: 32},
		"v2 accepted before":     {methods: onlyV1 | onlyV2, stream: with(v2, 0, 0), seen: true, want: replay, at: 32},
		"v2 before, damaged":     {methods: onlyV1 | onlyV2, stream: with(v2, 100, 1), seen: true, want: replay, at: 32},
		"v2 damaged":             {methods: onlyV1 | onlyV2, stream: with(v2, 100, 1), want: failed, at: 512},
		"v2 accepted":            {methods: onlyV1 | onlyV2, stream: with(v2, 200, 1), want: Verdict{State: Authentic}, at: 128},
		"none, stranger":         {methods: onlyV2, none: true, stream: random(600), want: unknown, at: 512},
		"none, accepted before":  {methods: onlyV2, none: true, stream: with(none, 0, 0), seen: true, want: replay, at: 512},
		"none, damaged":          {methods: onlyV2, none: true, stream: with(none, 100, 1), want: unknown, at: 512},
		"none, accepted":         {methods: onlyV2, none: true, stream: with(none, 200, 1), want: Verdict{State: Authentic}, at: 128},
		"none and v1, damaged":   {methods: onlyV1 | onlyV2, none: true, stream: with(v1, 70, 1), want: failed, at: 75},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "none, stranger" {
				c.stream[0] = 2 // never a frame v1
			}
			config := &StreamConfig{Methods: c.methods, HintNone: c.none, Seen: func(knockcore.ReplayKey) bool { return c.seen }}
			feed(t, config, ring, testPort, c.stream)
			got, at := feedBytewise(t, config, ring, testPort, c.stream)
			checkVerdict(t, got, at, c.want, c.at)
		})
	}
}

func TestStreamForeign(t *testing.T) {
	ring := testKeyring(t, testCredential("laptop", testSecret(1)))
	config := &StreamConfig{Methods: onlyV1 | onlyV2}
	unknown := Verdict{State: Foreign, Reason: knockcore.ReasonUnknownClient}
	tail := strings.Repeat("\x55", 32)
	for head, at := range map[string]int{
		"SSH-2.0-OpenSSH_10.0\r\n":             5,
		"SSH-1.99-x\r\n":                       5,
		"GET / HTTP/1.1\r\n":                   5,
		"GET http://a/ HTTP/1.1\r\n":           8,
		"HEAD /x HTTP/1.0\r\n":                 6,
		"POST /x HTTP/1.0\r\n":                 6,
		"PUT /x HTTP/1.0\r\n":                  5,
		"OPTIONS * HTTP/1.1\r\n":               8,
		"CONNECT a:443 HTTP/1.1\r\n":           8,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":     7,
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc": 7,
		"\x16\x03\x03\x00\x41\x01\x00\x00\x3d": 7,
		// These are no certain signs: the hint decides.
		"\x16\x03\x01\x02\x00\x02\x00": 32,
		"\x16\x03\x05\x02\x00\x01\x00": 32,
		"\x16\x03\x01\x41\x00\x01\x00": 32,
		"GET -":                        32,
		"SSH-3.0-":                     32,
		"get / HTTP/1.1\r\n":           32,
	} {
		feed(t, config, ring, testPort, []byte(head+tail))
		got, at2 := feedBytewise(t, config, ring, testPort, []byte(head+tail))
		checkVerdict(t, got, at2, unknown, at)
	}
	for head, need := range map[string]int{
		"": 5, "S": 5, "SSH-": 5, "G": 5, "GET": 5, "GET ": 5, "GET h": 8, "GET -": 32, "O": 8,
		"P": 5, "PO": 6, "\x16": 7, "\x16\x03\x01\x02\x00": 7, "\x02": 32, "\x01": 29,
	} {
		stream := config.NewStream(ring, testPort)
		if got := stream.Check([]byte(head)); got != (Verdict{Need: need}) {
			t.Errorf("%q: %+v, want to need %d", head, got, need)
		}
	}
}

// TestForeignChance adds up how likely a random prefix is taken for something
// else. libknock's senders do not know our patterns, so that frames of theirs are
// lost that often.
func TestForeignChance(t *testing.T) {
	chance := 0.0
	for _, p := range foreignPatterns {
		one := 1.0
		for _, b := range p {
			one *= float64(int(b.high)-int(b.low)+1) / 256
		}
		chance += one
		if len(p) > v2PrefixLen {
			t.Errorf("pattern of %d bytes ends behind the prefix", len(p))
		}
	}
	t.Logf("2^%.1f", math.Log2(chance))
	if chance > math.Exp2(-32) {
		t.Errorf("chance 2^%.1f", math.Log2(chance))
	}
}

// TestStreamLookalike checks that an envelope whose first bytes are almost those
// of another protocol is accepted.
func TestStreamLookalike(t *testing.T) {
	cred := testCredential("laptop", testSecret(1))
	for _, head := range []string{"GET -", "SSH-0", "\x16\x03\x01\x02\x00\x01\x01", "PRI * h", "\x00"} {
		b := mustSeal(t, cred, TCPFrame{Method: knockcore.MethodEnvelopeV2, Nonce: append([]byte(head), random(24-len(head))...)})
		config := &StreamConfig{Methods: onlyV1 | onlyV2}
		if v := feed(t, config, testKeyring(t, cred), testPort, b); v.State != Authentic {
			t.Errorf("%q: %+v", head, v)
		}
	}
}

// TestStreamSharedSecret has five clients with one secret: the hint fits all of
// them, the ID inside decides, and a nonce is seen per client.
func TestStreamSharedSecret(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e"}
	creds := make([]*knockcore.Credential, len(ids))
	for i, id := range ids {
		creds[i] = testCredential(id, testSecret(1))
	}
	ring := testKeyring(t, creds...)
	for _, method := range []knockcore.Method{knockcore.MethodFrameV1, knockcore.MethodEnvelopeV2} {
		for i, id := range ids {
			nonce := random(map[knockcore.Method]int{knockcore.MethodFrameV1: 16, knockcore.MethodEnvelopeV2: 24}[method])
			nonce[0] = 2
			b := mustSeal(t, creds[i], TCPFrame{Method: method, Nonce: nonce})
			config := &StreamConfig{Methods: onlyV1 | onlyV2}
			if v := feed(t, config, ring, testPort, b); v.State != Authentic || v.Credential.Client.ID != id {
				t.Errorf("%v: verdict %+v, want client %s", method, v, id)
			}
			// Another client used the same nonce: no replay. The client itself: one.
			other := ids[(i+1)%len(ids)]
			config.Seen = func(key knockcore.ReplayKey) bool {
				return key == knockcore.NewReplayKey(knockcore.ReplayTCP, other, nonce)
			}
			if v := feed(t, config, ring, testPort, b); v.State != Authentic || v.Credential.Client.ID != id {
				t.Errorf("%v: verdict %+v, want client %s", method, v, id)
			}
			other = id
			b = append(b, random(512)...)
			if v := feed(t, config, ring, testPort, b); v.State != Foreign || v.Reason != knockcore.ReasonReplay {
				t.Errorf("%v: verdict %+v, want replay", method, v)
			}
		}
	}
}

// TestStreamCopy goes on with a copy after the scan of the hints.
func TestStreamCopy(t *testing.T) {
	creds := []*knockcore.Credential{testCredential("a", testSecret(1)), testCredential("b", testSecret(1)), testCredential("c", testSecret(1))}
	b := mustSeal(t, creds[2], TCPFrame{Method: knockcore.MethodEnvelopeV2, Bucket: 192})
	config := &StreamConfig{Methods: onlyV2}
	stream := config.NewStream(testKeyring(t, creds...), testPort)
	if v := stream.Check(b[:150]); v != (Verdict{Need: 192}) {
		t.Fatalf("%+v", v)
	}
	twin := stream
	for _, s := range []*Stream{&stream, &twin} {
		if v := s.Check(b); v.State != Authentic || v.Credential.Client.ID != "c" {
			t.Errorf("%+v", v)
		}
	}
}

// TestStreamScansOnce counts look-ups while a frame comes byte by byte.
func TestStreamScansOnce(t *testing.T) {
	cred := testCredential("laptop", testSecret(1))
	lookups := 0
	for _, none := range []bool{false, true} {
		lookups = 0
		config := &StreamConfig{Methods: onlyV1 | onlyV2, HintNone: none, Seen: func(knockcore.ReplayKey) bool { lookups++; return false }}
		b := mustSeal(t, cred, TCPFrame{Method: knockcore.MethodEnvelopeV2, HintNone: none, Bucket: 512})
		if v, at := feedBytewise(t, config, testKeyring(t, cred), testPort, b); v.State != Authentic || at != 512 || lookups != 1 {
			t.Errorf("none %v: %+v at byte %d after %d look-ups", none, v, at, lookups)
		}
	}
}

// TestStreamAttempts checks that the budget covers all tries of a stream however
// it arrives, and that nothing more is waited for when it is used up.
func TestStreamAttempts(t *testing.T) {
	creds := []*knockcore.Credential{testCredential("a", testSecret(1)), testCredential("b", testSecret(1))}
	ring := testKeyring(t, creds...)
	b := mustSeal(t, creds[1], TCPFrame{Method: knockcore.MethodEnvelopeV2, Bucket: 256}) // the sixth try
	v1 := mustSeal(t, creds[1], TCPFrame{Method: knockcore.MethodFrameV1})
	for attempts, at := range map[int]int{1: 128, 2: 128, 3: 192, 4: 192, 5: 256} {
		config := &StreamConfig{Methods: onlyV2, MaxAttempts: attempts}
		got, gotAt := feedBytewise(t, config, ring, testPort, b)
		checkVerdict(t, got, gotAt, Verdict{State: Foreign, Reason: knockcore.ReasonAuthFailed, ClientID: "a"}, at)
		feed(t, config, ring, testPort, b)
	}
	if v := feed(t, &StreamConfig{Methods: onlyV2, MaxAttempts: 6}, ring, testPort, b); v.State != Authentic {
		t.Errorf("%+v", v)
	}
	if v := feed(t, &StreamConfig{Methods: onlyV1, MaxAttempts: 1}, ring, testPort, v1); v.Reason != knockcore.ReasonAuthFailed {
		t.Errorf("%+v", v)
	}
	if v := feed(t, &StreamConfig{Methods: onlyV1, MaxAttempts: 2}, ring, testPort, v1); v.State != Authentic {
		t.Errorf("%+v", v)
	}
}

// TestStreamRotation accepts frames of both secrets of a client.
func TestStreamRotation(t *testing.T) {
	old, new := testCredential("laptop", testSecret(1)), testCredential("laptop", testSecret(2))
	both := testCredential("laptop", testSecret(1))
	both.Client.Secrets = append(both.Client.Secrets, new.Secret)
	ring := testKeyring(t, both)
	for _, cred := range []*knockcore.Credential{old, new} {
		for _, method := range []knockcore.Method{knockcore.MethodFrameV1, knockcore.MethodEnvelopeV2} {
			b := mustSeal(t, cred, TCPFrame{Method: method})
			v := feed(t, &StreamConfig{Methods: onlyV1 | onlyV2}, ring, testPort, b)
			if v.State != Authentic || !v.Credential.Secret.Equal(cred.Secret) || !v.Frame.VerifyServerProof(cred, proofOf(v)) {
				t.Errorf("%v: %+v", method, v)
			}
		}
	}
}

func proofOf(v Verdict) []byte {
	proof := v.Frame.ServerProof(v.Credential)
	return proof[:]
}

func TestStreamMaxNeed(t *testing.T) {
	for want, c := range map[int]StreamConfig{
		512:  {Methods: onlyV2},
		192:  {Methods: onlyV2, Buckets: []int{128, 192}},
		1024: {Methods: onlyV1 | onlyV2},
		300:  {Methods: onlyV1, MaxFrame: 300},
		384:  {Methods: onlyV1 | onlyV2, MaxFrame: 300, Buckets: []int{384}},
		29:   {Methods: onlyV1, MaxFrame: 10},
		0:    {},
	} {
		stream := c.NewStream(nil, 0)
		if got := stream.MaxNeed(); got != want {
			t.Errorf("%+v: %d, want %d", c, got, want)
		}
	}
	none := (&StreamConfig{}).NewStream(nil, 0)
	if v := none.Check(nil); v.State != Foreign {
		t.Errorf("without methods %+v", v)
	}
}

func TestStreamConfigValidate(t *testing.T) {
	var creds []*knockcore.Credential
	for i := range 13 {
		creds = append(creds, testCredential(string(rune('a'+i)), testSecret(byte(i+1))))
	}
	ring := testKeyring(t, creds...)
	for name, c := range map[string]struct {
		config StreamConfig
		want   string // part of the error, "" for none
	}{
		"v1":            {StreamConfig{Methods: onlyV1}, ""},
		"both":          {StreamConfig{Methods: onlyV1 | onlyV2, MaxFrame: 75, MaxAttempts: 1, Buckets: []int{128, 512}}, ""},
		"none, v1":      {StreamConfig{Methods: onlyV1, HintNone: true}, ""},
		"none, 13 × 4":  {StreamConfig{Methods: onlyV2, HintNone: true, Buckets: []int{128, 192, 256, 384}}, ""},
		"none, 65":      {StreamConfig{Methods: onlyV2, HintNone: true, MaxAttempts: 65}, ""},
		"none, 13 × 5":  {StreamConfig{Methods: onlyV2, HintNone: true}, "13 secrets in each of 5 envelope sizes, that is 65 attempts, more than 64; use hint mode route-hint"},
		"no method":     {StreamConfig{}, "enable tcp-auth-envelope-v2, tcp-auth-frame-v1 or both"},
		"other methods": {StreamConfig{Methods: onlyV1 | knockcore.NewMethodSet(knockcore.MethodUDP)}, "[udp] is no method of TCP frames"},
		"bucket":        {StreamConfig{Methods: onlyV2, Buckets: []int{128, 200}}, "no envelope has 200 bytes; choose from [128 192 256 384 512]"},
		"order":         {StreamConfig{Methods: onlyV2, Buckets: []int{192, 128}}, "must ascend"},
		"twice":         {StreamConfig{Methods: onlyV2, Buckets: []int{128, 128}}, "must ascend"},
		"max frame":     {StreamConfig{Methods: onlyV1, MaxFrame: 65565}, "out of range"},
		"negative":      {StreamConfig{Methods: onlyV1, MaxFrame: -1}, "out of range"},
		"attempts":      {StreamConfig{Methods: onlyV1, MaxAttempts: -1}, "negative"},
	} {
		err := c.config.Validate(ring)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestOpenTCPFrameRefuses(t *testing.T) {
	cred := testCredential("laptop", testSecret(1))
	ring := testKeyring(t, cred)
	v1 := mustSeal(t, cred, TCPFrame{Method: knockcore.MethodFrameV1})
	v2 := mustSeal(t, cred, TCPFrame{Method: knockcore.MethodEnvelopeV2, Bucket: 128})
	damaged := bytes.Clone(v2)
	damaged[100] ^= 1
	for name, c := range map[string]struct {
		method knockcore.Method
		port   uint16
		frame  []byte
		want   knockcore.Reason
		client string
	}{
		"method":      {knockcore.MethodUDP, testPort, v1, knockcore.ReasonUnsupported, ""},
		"v1 empty":    {knockcore.MethodFrameV1, testPort, nil, knockcore.ReasonMalformed, ""},
		"v1 short":    {knockcore.MethodFrameV1, testPort, v1[:74], knockcore.ReasonMalformed, ""},
		"v1 trailing": {knockcore.MethodFrameV1, testPort, append(bytes.Clone(v1), 0), knockcore.ReasonMalformed, ""},
		"v1 is v2":    {knockcore.MethodFrameV1, testPort, append([]byte{2}, v2[1:]...), knockcore.ReasonUnsupported, ""},
		"v1 port":     {knockcore.MethodFrameV1, testPort + 1, v1, knockcore.ReasonUnknownClient, ""},
		"v2 empty":    {knockcore.MethodEnvelopeV2, testPort, nil, knockcore.ReasonMalformed, ""},
		"v2 trailing": {knockcore.MethodEnvelopeV2, testPort, append(bytes.Clone(v2), 0), knockcore.ReasonMalformed, ""},
		"v2 longer":   {knockcore.MethodEnvelopeV2, testPort, append(bytes.Clone(v2), random(64)...), knockcore.ReasonAuthFailed, "laptop"},
		"v2 port":     {knockcore.MethodEnvelopeV2, testPort + 1, v2, knockcore.ReasonUnknownClient, ""},
		"v2 damaged":  {knockcore.MethodEnvelopeV2, testPort, damaged, knockcore.ReasonAuthFailed, "laptop"},
	} {
		t.Run(name, func(t *testing.T) {
			f, by, err := OpenTCPFrame(ring, c.method, c.port, false, c.frame)
			var refusal *knockcore.Refusal
			if f != nil || by != nil || !errors.As(err, &refusal) || !errors.Is(err, c.want) || refusal.Client != c.client {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestOpenTCPFrameLong opens a frame v1 longer than what Seal makes and what a
// server takes unless it is told to.
func TestOpenTCPFrameLong(t *testing.T) {
	cred := testCredential("laptop", testSecret(1))
	ring := testKeyring(t, cred)
	f := TCPFrame{Method: knockcore.MethodFrameV1, Port: testPort, Extensions: make([]byte, 60000), Nonce: random(v1NonceLen)}
	f.setHint(cred, v1HintLabel)
	header := append(append([]byte{1, 0, 0}, f.Nonce...), f.Hint[:]...)
	plain := append(tcpIDHash(cred), 0, 0, 0, 0, 0, 0, 0, 0, testPort>>8, testPort&0xff)
	plain = f.appendFields(plain)
	header = binary.BigEndian.AppendUint16(header, uint16(len(plain)+16))
	b := tcpSeal(header, v1Key(cred, header), header[v1NonceAt:v1LengthAt], plain, header)

	if got, _, err := OpenTCPFrame(ring, f.Method, testPort, false, b); err != nil || len(got.Extensions) != 60000 {
		t.Errorf("error %v", err)
	}
	stream := (&StreamConfig{Methods: onlyV1, MaxFrame: len(b)}).NewStream(ring, testPort)
	if v := stream.Check(b); v.State != Authentic || v.Frame.Size != len(b) {
		t.Errorf("%+v", v)
	}
	stream = (&StreamConfig{Methods: onlyV1, MaxFrame: len(b) - 1}).NewStream(ring, testPort)
	if v := stream.Check(b); v.State != Foreign || v.Reason != knockcore.ReasonMalformed {
		t.Errorf("%+v", v)
	}
}

func TestStateString(t *testing.T) {
	if got := NeedMore.String() + "," + Foreign.String() + "," + Authentic.String() + "," + State(9).String(); got != "need more,foreign,authentic," {
		t.Error(got)
	}
}
