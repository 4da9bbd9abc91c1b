// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var benchSizes = []int{1, 100, 10000}

// benchKeyring has n clients; the returned credential is the one in the middle.
func benchKeyring(tb testing.TB, n int) (*knockcore.Keyring, *knockcore.Credential) {
	tb.Helper()
	creds := make([]*knockcore.Credential, n)
	for i := range creds {
		secret := []byte(fmt.Sprintf("secret of client %05d, 32 bytes..", i))
		creds[i] = testCredential(fmt.Sprintf("client-%05d", i), secret)
	}
	return testKeyring(tb, creds...), creds[n/2]
}

func foreignStreams() map[string][]byte {
	v1 := append([]byte{1, 0, 0}, random(61)...)
	v1[v1LengthAt], v1[v1LengthAt+1] = 0, 46
	v2 := append([]byte{2}, random(63)...)
	return map[string][]byte{
		"tls":     []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(random(53))),
		"http":    []byte("GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/8\r\n\r\n"),
		"ssh":     []byte("SSH-2.0-OpenSSH_10.0\r\n"),
		"like v1": v1,
		"like v2": v2,
	}
}

// TestStreamAllocs requires that strangers cost no allocation, however many
// clients there are.
func TestStreamAllocs(t *testing.T) {
	if peersRace {
		t.Skip("sync.Pool forgets under the race detector")
	}
	config := &StreamConfig{Methods: onlyV1 | onlyV2, Seen: func(knockcore.ReplayKey) bool { return true }}
	for _, n := range benchSizes {
		ring, cred := benchKeyring(t, n)
		streams := foreignStreams()
		streams["replayed v1"] = mustSeal(t, cred, TCPFrame{Method: knockcore.MethodFrameV1})
		streams["replayed v2"] = mustSeal(t, cred, TCPFrame{Method: knockcore.MethodEnvelopeV2})
		for name, buf := range streams {
			allocs := testing.AllocsPerRun(20, func() {
				stream := config.NewStream(ring, testPort)
				for at := range buf { // in pieces: as many verdicts as possible
					stream.Check(buf[:at])
				}
				if v := stream.Check(buf); v.State != Foreign {
					t.Errorf("%s: %+v", name, v)
				}
			})
			if allocs != 0 {
				t.Errorf("%s, %d clients: %v allocations", name, n, allocs)
			}
		}
	}
}

func benchStream(b *testing.B, config *StreamConfig, ring *knockcore.Keyring, buf []byte, want State) {
	benchStreamFrom(b, netip.Addr{}, config, ring, buf, want)
}

func benchStreamFrom(b *testing.B, source netip.Addr, config *StreamConfig, ring *knockcore.Keyring, buf []byte, want State) {
	b.ReportAllocs()
	for b.Loop() {
		stream := config.NewStream(ring, testPort)
		stream.From(source)
		if v := stream.Check(buf); v.State != want {
			b.Fatalf("%+v", v)
		}
	}
}

// BenchmarkStreamForeign is a stranger's stream with one client: what is
// recognised, and what has to be looked up.
func BenchmarkStreamForeign(b *testing.B) {
	ring, _ := benchKeyring(b, 1)
	for _, name := range []string{"tls", "http", "like v1", "like v2"} {
		buf := foreignStreams()[name]
		b.Run(name, func(b *testing.B) {
			benchStream(b, &StreamConfig{Methods: onlyV1 | onlyV2}, ring, buf, Foreign)
		})
	}
}

// BenchmarkStreamAccept is a good frame among n clients, from any address and from
// one that the client was admitted from.
func BenchmarkStreamAccept(b *testing.B) {
	for _, method := range []knockcore.Method{knockcore.MethodFrameV1, knockcore.MethodEnvelopeV2} {
		for _, n := range benchSizes {
			b.Run(fmt.Sprintf("%v/clients=%d", method, n), func(b *testing.B) {
				ring, cred := benchKeyring(b, n)
				buf := mustSeal(b, cred, TCPFrame{Method: method, Bucket: 128})
				benchStream(b, &StreamConfig{Methods: onlyV1 | onlyV2}, ring, buf, Authentic)
			})
			b.Run(fmt.Sprintf("%v/clients=%d/familiar", method, n), func(b *testing.B) {
				ring, cred := benchKeyring(b, n)
				ring.Remember(familiarAddr, &ring.Credentials()[n/2])
				buf := mustSeal(b, cred, TCPFrame{Method: method, Bucket: 128})
				benchStreamFrom(b, familiarAddr, &StreamConfig{Methods: onlyV1 | onlyV2}, ring, buf, Authentic)
			})
		}
	}
}

// BenchmarkStreamReject is 64 random bytes among n clients.
func BenchmarkStreamReject(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			ring, _ := benchKeyring(b, n)
			benchStream(b, &StreamConfig{Methods: onlyV2}, ring, foreignStreams()["like v2"], Foreign)
		})
	}
}

// BenchmarkStreamRejectNone is the worst case of hint mode none: 12 clients, all
// five buckets.
func BenchmarkStreamRejectNone(b *testing.B) {
	ring, _ := benchKeyring(b, 12)
	buf := random(512)
	buf[0] = 2
	benchStream(b, &StreamConfig{Methods: onlyV2, HintNone: true}, ring, buf, Foreign)
}

// BenchmarkBareMACs is the floor for BenchmarkStreamReject: one HMAC for each of
// n clients and nothing else.
func BenchmarkBareMACs(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			ring, _ := benchKeyring(b, n)
			creds := ring.Credentials()
			scratch := knockcore.NewMACScratch()
			scratch.Buf = appendHintMessage(scratch.Buf[:0], v2HintLabel, random(v2PrefixLen), testPort)
			b.ReportAllocs()
			for b.Loop() {
				for i := range creds {
					creds[i].MAC.Sum(scratch, scratch.Buf)
				}
			}
		})
	}
}
