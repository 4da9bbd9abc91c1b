// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"math"
	"slices"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// OpenTCPFrame opens bytes that are exactly one TCP frame, for looking into a
// recorded one. method is MethodFrameV1 or MethodEnvelopeV2, hintNone the hint
// mode of an envelope v2, port the protected port that it was made for. An
// envelope must have the length of a bucket, and only that bucket is tried; a
// frame v1 may have any length that its header can tell, more than servers accept
// too. Time and replay are not checked. Errors wrap a knockcore.Reason and are of
// type *knockcore.Refusal.
func OpenTCPFrame(k *knockcore.Keyring, method knockcore.Method, port uint16, hintNone bool, frame []byte) (*TCPFrame, *knockcore.Credential, error) {
	config := StreamConfig{
		Methods: knockcore.NewMethodSet(method), HintNone: hintNone,
		MaxFrame: v1HeaderLen + math.MaxUint16, MaxAttempts: math.MaxInt,
	}
	switch method {
	case knockcore.MethodFrameV1:
		if err := v1Exact(frame); err != nil {
			return nil, nil, err
		}
	case knockcore.MethodEnvelopeV2:
		if !slices.Contains(v2Buckets[:], len(frame)) {
			return nil, nil, tcpRefuse(knockcore.ReasonMalformed, "an envelope has %v bytes, this one has %d", v2Buckets, len(frame))
		}
		config.Buckets = []int{len(frame)}
	default:
		return nil, nil, tcpRefuse(knockcore.ReasonUnsupported, "%q is no method of a TCP frame", method)
	}
	stream := config.NewStream(k, port)
	v := stream.Check(frame)
	if v.State != Authentic {
		return nil, nil, &knockcore.Refusal{Reason: v.Reason, Client: v.ClientID}
	}
	return v.Frame, v.Credential, nil
}

// v1Exact checks the header of a frame v1 and that nothing is missing or left.
func v1Exact(frame []byte) error {
	if len(frame) < v1HeaderLen {
		return tcpRefuse(knockcore.ReasonMalformed, "a frame v1 begins with %d bytes of header, here are only %d", v1HeaderLen, len(frame))
	}
	size, reason := checkV1Header(frame[:v1HeaderLen], math.MaxInt)
	switch {
	case reason != knockcore.ReasonNone:
		return tcpRefuse(reason, "header begins with % x", frame[:v1NonceAt])
	case size != len(frame):
		return tcpRefuse(knockcore.ReasonMalformed, "frame has %d bytes, its header tells of %d", len(frame), size)
	default:
		return nil
	}
}
