// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// DefaultPyknockWindow is by how much the time of a pyknock datagram may differ
// from the server's clock, in both directions, unless configured (section 3).
const DefaultPyknockWindow = 60 * time.Second

// Layout of the datagram (pyknock-datagram.md section 1).
const (
	pyknockMACLen  = sha256.Size
	pyknockOpcode  = pyknockMACLen     // one byte
	pyknockTime    = pyknockOpcode + 1 // binary64, little-endian
	pyknockFamily  = pyknockTime + 8   // int32, little-endian
	pyknockAddr    = pyknockFamily + 4 // 4 or 16 bytes, network order
	pyknockLenIPv4 = pyknockAddr + 4
	pyknockLenIPv6 = pyknockAddr + 16

	pyknockOpen  = 1
	pyknockClose = 2
)

// Address family numbers that Seal writes: Linux's, because deployed pyknock
// servers are Linux and die of others.
const (
	pyknockAFInet  = 2
	pyknockAFInet6 = 10
)

var (
	errPyknockLength = fmt.Errorf("%w: a pyknock datagram has 49 or 61 bytes", knockcore.ReasonMalformed)
	errPyknockTime   = fmt.Errorf("%w: the time is not a finite number", knockcore.ReasonMalformed)
)

// Pyknock is one pyknock datagram (pyknock-datagram.md section 1).
type Pyknock struct {
	// Close asks to close instead of to open: opcode 2 instead of 1.
	Close bool
	// Time is when the datagram was made, in Unix seconds with a fraction. See
	// PyknockTime and Timestamp.
	Time float64
	// Family is the address family number of the sender's operating system: 2
	// for IPv4; 10, 23, 24, 26, 28 or 30 for IPv6. For Seal, 0 means Linux's
	// number (2 or 10).
	Family int32
	// Addr is the signed address: what the knock is for, whatever the datagram's
	// source. Open leaves an IPv4-mapped IPv6 address as it is and takes any
	// address, also unspecified, loopback and multicast: what may be granted is
	// policy.
	Addr netip.Addr
	// MAC is the datagram's authenticator, which identifies it to the replay
	// guard. Open sets it; Seal ignores it.
	MAC [32]byte
}

// PyknockTime is t as a pyknock time: Unix seconds with a fraction.
func PyknockTime(t time.Time) float64 { return float64(t.Unix()) + float64(t.Nanosecond())/1e9 }

// Timestamp is Time as a time.Time, exact to about a microsecond.
func (p *Pyknock) Timestamp() time.Time {
	sec, frac := math.Modf(p.Time)
	return time.Unix(int64(sec), int64(math.Round(frac*1e9)))
}

// ReplayKey identifies the datagram of this client to the replay guard. No other
// datagram of the client has the same key, however it is sent.
func (p *Pyknock) ReplayKey(clientID string) knockcore.ReplayKey {
	return knockcore.NewReplayKey(knockcore.ReplayPyknock, clientID, p.MAC[:])
}

// LooksLikePyknock reports whether b has the length of a pyknock datagram: 49
// bytes (IPv4) or 61 (IPv6). There is nothing else to tell it by.
func LooksLikePyknock(b []byte) bool { return len(b) == pyknockLenIPv4 || len(b) == pyknockLenIPv6 }

// Seal builds the datagram under psk, which may be empty (section 1). It fails
// if the time is not finite, or the address is missing, has a zone, or does not
// fit Family.
func (p *Pyknock) Seal(psk knockcore.Secret) ([]byte, error) {
	switch {
	case !p.Addr.IsValid():
		return nil, errors.New("pyknock: no address to sign")
	case p.Addr.Zone() != "":
		return nil, errors.New("pyknock: an address with a zone cannot be signed")
	case math.IsNaN(p.Time) || math.IsInf(p.Time, 0):
		return nil, errors.New("pyknock: the time is not a finite number")
	}
	family := p.Family
	if family == 0 {
		family = pyknockAFInet6
		if p.Addr.Is4() {
			family = pyknockAFInet
		}
	}
	addr := p.Addr.AsSlice()
	if !pyknockFamilyFits(family, len(addr)) {
		return nil, fmt.Errorf("pyknock: address family %d does not fit the address", family)
	}
	b := make([]byte, pyknockMACLen, pyknockLenIPv6)
	opcode := byte(pyknockOpen)
	if p.Close {
		opcode = pyknockClose
	}
	b = append(b, opcode)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(p.Time))
	b = binary.LittleEndian.AppendUint32(b, uint32(family))
	b = append(b, addr...)
	mac := hmac.New(sha256.New, psk.Bytes())
	mac.Write(b[pyknockMACLen:])
	mac.Sum(b[:0])
	return b, nil
}

// OpenPyknock reads a datagram made with psk, in the order of section 5: length
// (49 or 61 bytes), finite time, |time-now| at most window (0: the default),
// HMAC in constant time, family and length of the address, opcode.
//
// The error wraps ReasonMalformed, ReasonStale, ReasonFuture, or
// ReasonUnknownClient if the HMAC does not fit. Stale and future datagrams are
// refused before their HMAC is looked at, so those reasons are no proof that the
// datagram is anybody's, and carry no skew.
func OpenPyknock(now time.Time, window time.Duration, psk knockcore.Secret, b []byte) (*Pyknock, error) {
	if err := checkPyknock(now, window, b); err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, psk.Bytes())
	mac.Write(b[pyknockMACLen:])
	if !hmac.Equal(mac.Sum(nil), b[:pyknockMACLen]) {
		return nil, knockcore.ReasonUnknownClient
	}
	return decodePyknock(b, "")
}

// checkPyknock makes the checks that need no key.
func checkPyknock(now time.Time, window time.Duration, b []byte) error {
	if !LooksLikePyknock(b) {
		return errPyknockLength
	}
	if window <= 0 {
		window = DefaultPyknockWindow
	}
	t := math.Float64frombits(binary.LittleEndian.Uint64(b[pyknockTime:]))
	if math.IsNaN(t) || math.IsInf(t, 0) {
		return errPyknockTime
	}
	switch skew, limit := t-PyknockTime(now), window.Seconds(); {
	case skew < -limit:
		return knockcore.ReasonStale
	case skew > limit:
		return knockcore.ReasonFuture
	}
	return nil
}

// decodePyknock reads an authentic datagram of this client.
func decodePyknock(b []byte, client string) (*Pyknock, error) {
	refuse := func(detail string) error {
		return &knockcore.Refusal{Reason: knockcore.ReasonMalformed, Client: client, Detail: detail}
	}
	p := &Pyknock{
		Time:   math.Float64frombits(binary.LittleEndian.Uint64(b[pyknockTime:])),
		Family: int32(binary.LittleEndian.Uint32(b[pyknockFamily:])),
	}
	addr := b[pyknockAddr:]
	if !pyknockFamilyFits(p.Family, len(addr)) {
		return nil, refuse("the address family does not fit the length of the address")
	}
	p.Addr, _ = netip.AddrFromSlice(addr)
	switch b[pyknockOpcode] {
	case pyknockOpen:
	case pyknockClose:
		p.Close = true
	default:
		return nil, refuse("the opcode is neither 1 (open) nor 2 (close)")
	}
	copy(p.MAC[:], b)
	return p, nil
}

// pyknockFamilyFits reports whether some operating system has this number for
// addresses of so many bytes (section 1).
func pyknockFamilyFits(family int32, addrLen int) bool {
	switch family {
	case pyknockAFInet:
		return addrLen == 4
	case pyknockAFInet6, 23, 24, 26, 28, 30: // Linux, Windows, OpenBSD and NetBSD, Solaris, FreeBSD, macOS
		return addrLen == 16
	default:
		return false
	}
}
