// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"fmt"
	"strings"
)

// Method is how a knock arrives. Method strings appear in configuration,
// metrics and, for libknock's datagrams, inside the frame.
type Method uint8

// The methods. MethodNone is not one.
const (
	MethodNone          Method = iota
	MethodFrameV1              // tcp-auth-frame-v1: libknock's older TCP frame
	MethodEnvelopeV2           // tcp-auth-envelope-v2: libknock's TCP envelope, the default
	MethodUDP                  // udp: one sealed datagram
	MethodUDPSeq               // udp-seq: a sequence of sealed datagrams
	MethodUDPPassive           // udp-passive: as udp, read from packets that are dropped
	MethodUDPPassiveSeq        // udp-passive-seq
	MethodTCPSYN               // tcp-syn: a crafted SYN
	MethodTCPSYNSeq            // tcp-syn-seq
	MethodPortSequence         // port-sequence: knockd's and knock-rs's way
	MethodPyknock              // pyknock
	MethodFwknop               // fwknop
	MethodHTTP                 // http: the Knocker API

	methodCount
)

var methodNames = [methodCount]string{
	"", "tcp-auth-frame-v1", "tcp-auth-envelope-v2", "udp", "udp-seq", "udp-passive",
	"udp-passive-seq", "tcp-syn", "tcp-syn-seq", "port-sequence", "pyknock", "fwknop", "http",
}

// String returns the method's name, "" for MethodNone.
func (m Method) String() string {
	if m < methodCount {
		return methodNames[m]
	}
	return ""
}

// MarshalText writes the method's name.
func (m Method) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a method's name as ParseMethod does; nothing means
// MethodNone.
func (m *Method) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = MethodNone
		return nil
	}
	parsed, err := ParseMethod(string(text))
	if err == nil {
		*m = parsed
	}
	return err
}

// ParseMethod finds a method by its name. The error lists all names.
func ParseMethod(name string) (Method, error) {
	for m := MethodNone + 1; m < methodCount; m++ {
		if methodNames[m] == name {
			return m, nil
		}
	}
	return MethodNone, fmt.Errorf("unknown method %q; expect one of %s", name, strings.Join(methodNames[1:], ", "))
}

// MethodSet is a set of methods; the zero value is empty.
type MethodSet uint16

// NewMethodSet makes a set of methods.
func NewMethodSet(methods ...Method) MethodSet {
	var s MethodSet
	for _, m := range methods {
		s |= 1 << m
	}
	return s
}

// AllMethods is the set of all methods.
const AllMethods = MethodSet(1<<methodCount - 2)

// Has reports whether m is in the set.
func (s MethodSet) Has(m Method) bool { return m != MethodNone && s&(1<<m) != 0 }

// Methods lists the set in the order of the constants.
func (s MethodSet) Methods() []Method {
	var list []Method
	for m := MethodNone + 1; m < methodCount; m++ {
		if s.Has(m) {
			list = append(list, m)
		}
	}
	return list
}

// IsFrame reports whether the method is a frame inside a TCP stream: its grants
// are for that stream only.
func (m Method) IsFrame() bool { return m == MethodFrameV1 || m == MethodEnvelopeV2 }

// CarriesSession reports whether a knock of this method can carry a session ID.
func (m Method) CarriesSession() bool {
	switch m {
	case MethodUDP, MethodUDPSeq, MethodUDPPassive, MethodUDPPassiveSeq:
		return true
	default:
		return false
	}
}
