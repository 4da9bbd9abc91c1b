// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// newSession is the session ID of one knock; nil if the method has none.
func (k *Knock) newSession() []byte {
	if !k.method().CarriesSession() || k.Session != nil {
		return k.Session
	}
	id := make([]byte, sessionLen)
	_, _ = rand.Read(id) // never fails: see crypto/rand
	return id
}

// portsOfFrames lists the port of each frame that makes up the knock.
func (k *Knock) portsOfFrames() []uint16 {
	if !UsesSecret(k.method()) {
		return []uint16{0} // one datagram says it all
	}
	var ports []uint16
	for _, p := range k.Ports {
		ports = append(ports, p.Low)
	}
	return ports
}

// shot is what differs between the datagrams of one knock.
type shot struct {
	port       uint16
	index      int
	sequenceID [16]byte
	session    []byte
	local      netip.Addr // of the route to the server
	slot       int64      // of a crafted SYN
}

// seal makes one fresh datagram.
func (k *Knock) seal(s *shot) ([]byte, error) {
	now := time.Now
	if k.Now != nil {
		now = k.Now
	}
	var b []byte
	var err error
	switch k.method() {
	case knockcore.MethodPyknock:
		p := wire.Pyknock{Close: k.Close, Time: wire.PyknockTime(now()), Addr: k.Address}
		if !p.Addr.IsValid() {
			p.Addr = s.local.WithZone("")
		}
		b, err = p.Seal(k.Secret)
	case knockcore.MethodFwknop:
		b, err = k.fwknop(now()).Seal(k.Fwknop)
	default:
		d := wire.Datagram{
			Method: k.method(), Port: s.port, Time: now().UnixMilli(), Session: s.session, Extensions: k.Extensions,
		}
		if k.isSequence() {
			d.Sequence, d.SequenceID, d.Index, d.Total = true, s.sequenceID, uint8(s.index), uint8(k.parts())
		}
		b, err = d.Seal(&knockcore.Credential{Client: &knockcore.Client{ID: k.ClientID}, Secret: k.Secret})
	}
	var refusal *knockcore.Refusal
	if errors.As(err, &refusal) { // it speaks of the settings here
		err = errors.New(refusal.Detail)
	}
	if err != nil {
		return nil, fmt.Errorf("making the knock: %w", err)
	}
	return b, nil
}

func (k *Knock) fwknop(now time.Time) *wire.Fwknop {
	f := &wire.Fwknop{
		User: k.User, Time: now.Unix(), Type: wire.FwknopAccess, Allow: k.Address, Ports: k.Ports, Timeout: k.OpenFor,
	}
	if f.Timeout != 0 {
		f.Type = wire.FwknopAccessTimeout
	}
	if !f.Allow.IsValid() {
		f.Allow = netip.IPv4Unspecified()
	}
	if f.User == "" {
		f.User = k.ClientID
	}
	if f.User == "" {
		f.User = "knock"
	}
	return f
}
