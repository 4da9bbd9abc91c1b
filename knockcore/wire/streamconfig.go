// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"math"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// defaultMaxAttempts is libknock's bound on tries (libknock.md section 3).
const defaultMaxAttempts = 64

// tcpMethods are the methods that StreamConfig knows.
const tcpMethods = knockcore.MethodSet(1<<knockcore.MethodFrameV1 | 1<<knockcore.MethodEnvelopeV2)

// StreamConfig says which frames may lead a stream. It must not change once a
// Stream was made of it; it may then be used concurrently.
type StreamConfig struct {
	// Methods are the methods accepted, of MethodFrameV1 and MethodEnvelopeV2.
	Methods knockcore.MethodSet
	// HintNone expects envelopes v2 without a route hint, instead of with one:
	// both sides must agree. It costs a decryption for each secret and bucket.
	HintNone bool
	// Buckets are the sizes of envelopes v2 that are accepted, ascending, of those
	// that the function Buckets lists; none means all.
	Buckets []int
	// MaxFrame is the greatest frame v1 that is accepted, in bytes; 0 means 1024.
	MaxFrame int
	// MaxAttempts bounds the decryptions tried for one stream, each of one secret
	// and one bucket; 0 means 64.
	MaxAttempts int
	// Seen, if not nil, reports whether a nonce was accepted before. Such a frame
	// is refused where the frame of a stranger is, so that the head of a recorded
	// one tells nothing. This is no substitute for spending the nonce.
	Seen func(knockcore.ReplayKey) bool
}

// Validate reports the first thing wrong with the configuration, and says what
// to do about it. The keyring matters in hint mode none only: every secret is
// tried in every bucket, so their product must not exceed MaxAttempts
// (libknock.md section 3).
func (c *StreamConfig) Validate(k *knockcore.Keyring) error {
	const maxFrame = v1HeaderLen + math.MaxUint16
	switch {
	case c.Methods&tcpMethods == 0:
		return fmt.Errorf("no method of TCP frames is accepted; enable %v, %v or both", knockcore.MethodEnvelopeV2, knockcore.MethodFrameV1)
	case c.Methods&^tcpMethods != 0:
		return fmt.Errorf("%v is no method of TCP frames; enable only %v and %v",
			(c.Methods &^ tcpMethods).Methods(), knockcore.MethodEnvelopeV2, knockcore.MethodFrameV1)
	case c.MaxFrame < 0 || c.MaxFrame > maxFrame:
		return fmt.Errorf("greatest frame of %d bytes is out of range; choose up to %d, or 0 for %d", c.MaxFrame, maxFrame, v1MaxFrame)
	case c.MaxAttempts < 0:
		return fmt.Errorf("%d attempts are negative; 0 means %d", c.MaxAttempts, defaultMaxAttempts)
	}
	for i, size := range c.Buckets {
		if !slices.Contains(v2Buckets[:], size) {
			return fmt.Errorf("no envelope has %d bytes; choose from %v", size, v2Buckets)
		}
		if i > 0 && size <= c.Buckets[i-1] {
			return fmt.Errorf("envelope sizes %v must ascend; write %d only once and in its place", c.Buckets, size)
		}
	}
	if !c.HintNone || !c.Methods.Has(knockcore.MethodEnvelopeV2) {
		return nil
	}
	secrets, sizes := len(k.Credentials()), len(c.buckets())
	if secrets*sizes > c.maxAttempts() {
		return fmt.Errorf("hint mode none tries each of %d secrets in each of %d envelope sizes, that is %d attempts, more than %d; "+
			"use hint mode route-hint, or accept fewer sizes, or allow more attempts", secrets, sizes, secrets*sizes, c.maxAttempts())
	}
	return nil
}

func (c *StreamConfig) buckets() []int {
	if len(c.Buckets) == 0 {
		return v2Buckets[:]
	}
	return c.Buckets
}

func (c *StreamConfig) maxFrame() int {
	if c.MaxFrame == 0 {
		return v1MaxFrame
	}
	return c.MaxFrame
}

func (c *StreamConfig) maxAttempts() int {
	if c.MaxAttempts == 0 {
		return defaultMaxAttempts
	}
	return c.MaxAttempts
}

func (c *StreamConfig) seen(cred *knockcore.Credential, nonce []byte) bool {
	return c.Seen != nil && c.Seen(knockcore.NewReplayKey(knockcore.ReplayTCP, cred.Client.ID, nonce))
}
