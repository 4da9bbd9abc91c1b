// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Stream verifies the head of one TCP stream. It remembers how far it came, so
// that feeding byte by byte costs one scan of the clients' hints and one
// decryption for each candidate and bucket. Make one with
// StreamConfig.NewStream. It is not safe for concurrent use; a copy goes on by
// itself from where the original was.
type Stream struct {
	config *StreamConfig
	ring   *knockcore.Keyring
	port   uint16
	source netip.Addr

	scanned  bool
	hinted   bool // the candidates are those that the hint fits
	replayed bool // a candidate was dropped since its nonce was seen
	bucket   int  // index of the next bucket to try
	tries    int

	// The candidates, usually one at most: the first two without an allocation.
	few  [2]*knockcore.Credential
	n    int
	more []*knockcore.Credential

	last Verdict
}

// NewStream begins the verification of one stream to the protected port, with
// the clients of k. It does not allocate.
func (c *StreamConfig) NewStream(k *knockcore.Keyring, port uint16) Stream {
	return Stream{config: c, ring: k, port: port}
}

// From tells where the stream comes from: a client whose frame was admitted from
// there lately (see Admitted) is tried before the others, which changes no verdict.
func (s *Stream) From(source netip.Addr) { s.source = source }

// Admitted tells that the frame of the verdict, which was Authentic, was admitted.
func (s *Stream) Admitted() { s.ring.Remember(s.source, s.last.Credential) }

// MaxNeed returns the most bytes that can be needed for a final verdict.
func (s *Stream) MaxNeed() int {
	most := 0
	if s.config.Methods.Has(knockcore.MethodEnvelopeV2) {
		most = slices.Max(s.config.buckets())
	}
	if s.config.Methods.Has(knockcore.MethodFrameV1) {
		most = max(most, s.config.maxFrame(), v1HeaderLen)
	}
	return most
}

// Check returns the verdict on a stream that begins with buf: all bytes received
// so far, from the start. Call it again with more bytes as long as the state is
// NeedMore; the bytes known already must be the same. After a final verdict it
// returns that. It keeps nothing of buf.
//
// What only the keys can tell is told at one byte for all who do not have them:
// a frame whose hint fits nobody, and one that was accepted before, are refused
// where the hint ends (byte 29 for v1, 32 for v2), and so are v1 headers with
// mistakes. In hint mode none there is no hint, and all are refused after the
// greatest bucket. What begins like TLS, HTTP or SSH is refused as soon as that
// is sure.
func (s *Stream) Check(buf []byte) Verdict {
	if s.last.State == NeedMore {
		s.check(buf)
	}
	return s.last
}

// check sets the verdict, as checkV1 and checkV2 do.
func (s *Stream) check(buf []byte) {
	v1 := s.config.Methods.Has(knockcore.MethodFrameV1)
	switch {
	case v1 && len(buf) > 0 && buf[0] == v1Version:
		s.checkV1(buf)
	case s.config.Methods.Has(knockcore.MethodEnvelopeV2):
		s.checkV2(buf)
	case v1 && len(buf) == 0:
		s.needMore(1)
	default:
		s.foreign(knockcore.ReasonUnknownClient, "")
	}
}

func (s *Stream) checkV1(buf []byte) {
	if len(buf) < v1HeaderLen {
		s.needMore(v1HeaderLen)
		return
	}
	size, reason := checkV1Header(buf[:v1HeaderLen], s.config.maxFrame())
	if reason != knockcore.ReasonNone {
		s.foreign(reason, "")
		return
	}
	if !s.scanned {
		s.scan(v1HintLabel, buf[v1NonceAt:v1HintAt], buf[v1HintAt:v1LengthAt])
	}
	if s.n > 0 && len(buf) < size {
		s.needMore(size)
		return
	}
	for _, cred := range s.candidates() {
		if s.tries == s.config.maxAttempts() {
			break
		}
		s.tries++
		if f := openV1(cred, buf[:size]); f != nil {
			s.authentic(f, cred)
			return
		}
	}
	s.refuse()
}

func (s *Stream) checkV2(buf []byte) {
	buckets := s.config.buckets()
	if !s.scanned {
		alien, need := beginsForeign(buf)
		if alien {
			s.foreign(knockcore.ReasonUnknownClient, "")
			return
		}
		head := v2HintEnd
		if s.config.HintNone {
			head = buckets[0]
		}
		if len(buf) < head {
			s.needMore(min(need, head))
			return
		}
		if s.config.HintNone {
			s.scanAll(buf[:v2PrefixLen])
		} else {
			s.scan(v2HintLabel, buf[:v2PrefixLen], buf[v2PrefixLen:v2HintEnd])
		}
	}
	if s.n == 0 && !s.config.HintNone {
		s.refuse()
		return
	}
	for ; s.bucket < len(buckets); s.bucket++ {
		size := buckets[s.bucket]
		if len(buf) < size {
			s.needMore(size)
			return
		}
		for _, cred := range s.candidates() {
			if s.tries == s.config.maxAttempts() {
				s.refuse()
				return
			}
			s.tries++
			if f := openV2(cred, s.port, s.config.HintNone, buf[:size]); f != nil {
				s.authentic(f, cred)
				return
			}
		}
		if s.n > 0 && s.tries == s.config.maxAttempts() {
			s.refuse()
			return
		}
	}
	s.refuse()
}

// scan finds the candidates by their hint and drops those whose nonce was seen.
func (s *Stream) scan(label string, nonce, hint []byte) {
	scratch := knockcore.GetMACScratch()
	defer scratch.Free()
	scratch.Buf = appendHintMessage(scratch.Buf[:0], label, nonce, s.port)
	var room [len(s.few)]*knockcore.Credential
	for _, cred := range s.ring.Familiar(s.source, scratch, scratch.Buf, hint, room[:0]) {
		s.add(cred, nonce)
	}
	if s.n == 0 { // nobody's, or a replay, which must take as long
		for _, cred := range s.ring.Candidates(scratch, scratch.Buf, hint, room[:0]) {
			s.add(cred, nonce)
		}
	}
	s.scanned, s.hinted = true, true
}

// scanAll makes everybody a candidate, but for those whose nonce was seen.
func (s *Stream) scanAll(nonce []byte) {
	creds := s.ring.Credentials()
	for i := range creds {
		s.add(&creds[i], nonce)
	}
	s.scanned = true
}

func (s *Stream) add(cred *knockcore.Credential, nonce []byte) {
	switch {
	case s.config.seen(cred, nonce):
		s.replayed = true
	case s.n < len(s.few):
		s.few[s.n] = cred
		s.n++
	default:
		if s.more == nil {
			s.more = append(s.more, s.few[:]...)
		}
		s.more = append(s.more, cred)
		s.n++
	}
}

func (s *Stream) candidates() []*knockcore.Credential {
	if s.more != nil {
		return s.more
	}
	return s.few[:s.n]
}

func (s *Stream) needMore(n int) { s.last.Need = n }

func (s *Stream) foreign(reason knockcore.Reason, clientID string) {
	s.last = Verdict{State: Foreign, Reason: reason, ClientID: clientID}
}

// authentic ends with a frame that a client made: for this port or for another.
func (s *Stream) authentic(f *TCPFrame, cred *knockcore.Credential) {
	if f.Port != s.port {
		s.foreign(knockcore.ReasonWrongPort, cred.Client.ID)
		return
	}
	s.last = Verdict{State: Authentic, Frame: f, Credential: cred}
}

// refuse ends with no candidate left, or none that opened the frame.
func (s *Stream) refuse() {
	switch {
	case s.replayed:
		s.foreign(knockcore.ReasonReplay, "")
	case s.n == 0, !s.hinted:
		s.foreign(knockcore.ReasonUnknownClient, "")
	default:
		s.foreign(knockcore.ReasonAuthFailed, s.few[0].Client.ID)
	}
}
