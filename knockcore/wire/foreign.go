// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "math"

// A foreignPattern is how a stream of another protocol begins: one range of values for
// each byte.
type foreignPattern []struct{ low, high byte }

// foreignPatterns lists what is recognised. A random prefix of an envelope v2
// fits one of them with a chance of about 2^-37 in all, far below 2^-32: each
// has five fixed bytes at least, or as much in ranges. TestForeignChance adds it
// up.
var foreignPatterns = []foreignPattern{
	// A TLS record of type handshake, SSL 3.0 to TLS 1.3, of at most 2^14 bytes
	// and a bit, with a ClientHello of less than 64 KiB (RFC 8446 sections 4 and
	// 5.1).
	{{0x16, 0x16}, {0x03, 0x03}, {0x00, 0x04}, {0x00, 0x40}, {0x00, 0xff}, {0x01, 0x01}, {0x00, 0x00}},
	foreignText("SSH-1"), foreignText("SSH-2"),
	foreignText("GET /"), foreignText("GET http"), foreignText("HEAD /"), foreignText("HEAD http"),
	foreignText("POST /"), foreignText("PUT /"), foreignText("PATCH /"), foreignText("DELETE /"),
	foreignText("TRACE /"), foreignText("OPTIONS "), foreignText("CONNECT "), foreignText("PROPFIND "),
	foreignText("PRI * H"),
}

// foreignFirst are the first bytes that they can have: of random ones, few.
var foreignFirst = func() (first [256]bool) {
	for _, p := range foreignPatterns {
		for b := int(p[0].low); b <= int(p[0].high); b++ {
			first[b] = true
		}
	}
	return first
}()

func foreignText(s string) foreignPattern {
	p := make(foreignPattern, len(s))
	for i := range p {
		p[i].low, p[i].high = s[i], s[i]
	}
	return p
}

// beginsForeign reports whether a stream that begins with head is TLS, HTTP or
// SSH for sure. If it is not, need is the least number of bytes after which it
// could be, math.MaxInt if it cannot be any more.
func beginsForeign(head []byte) (foreign bool, need int) {
	need = math.MaxInt
	if len(head) > 0 && !foreignFirst[head[0]] {
		return false, need
	}
	for _, p := range foreignPatterns {
		if n := min(len(head), len(p)); p.fits(head[:n]) {
			if n == len(p) {
				return true, n
			}
			need = min(need, len(p))
		}
	}
	return false, need
}

func (p foreignPattern) fits(head []byte) bool {
	for i, b := range head {
		if b < p[i].low || b > p[i].high {
			return false
		}
	}
	return true
}
