// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// The defaults of knocks by datagram.
const (
	// DefaultKnockPort is the UDP port that knocks go to.
	DefaultKnockPort = 62201
	// DefaultPyknockPort is pyknock's own.
	DefaultPyknockPort = 60120
	// DefaultInterval is the time between the parts of a sequence, and between
	// copies.
	DefaultInterval = 80 * time.Millisecond
	// MaxCopies bounds Knock.Copies.
	MaxCopies = 100

	sessionLen = 16
)

// Knock is a knock by datagram: who knocks, how and for what. It is a plain
// value: copy it as you like. Which fields count depends on the method.
type Knock struct {
	// Method is one of the four of libknock's datagrams, MethodTCPSYN or
	// MethodTCPSYNSeq (crafted SYNs to the protected port, for which this process
	// needs CAP_NET_RAW on Linux), MethodPyknock, MethodFwknop or MethodPortSequence;
	// MethodNone means MethodUDP.
	Method knockcore.Method
	// ClientID is the client's name: of libknock's datagrams.
	ClientID string
	// Secret is the client's secret for libknock's datagrams, or the pre-shared
	// key for pyknock.
	Secret knockcore.Secret
	// Fwknop are the keys for fwknop.
	Fwknop knockcore.FwknopKeys
	// Ports are the protected ports to knock for. Libknock's datagrams name one
	// port each, so that there is a knock for each of them; fwknop's packets name
	// them all; pyknock's none.
	Ports []knockcore.PortRange
	// Session is the session ID of libknock's datagrams, 16 to 255 bytes; nil
	// means 16 random bytes.
	Session []byte
	// Extensions are those of libknock's datagrams; no types are defined.
	Extensions []wire.TLV
	// Address is what to open for: the signed address of pyknock, the allowed one
	// of fwknop. The zero value means the address that the datagram comes from:
	// for pyknock that of the route to the server, for fwknop 0.0.0.0, which the
	// server takes for the source that it sees. Libknock's datagrams have none.
	Address netip.Addr
	// Close asks to close instead of to open. Only pyknock can.
	Close bool
	// User is the name that a fwknop packet claims; "" means ClientID, or
	// "knock" if there is none.
	User string
	// OpenFor is for how long a fwknop packet asks to open, in whole seconds; 0
	// leaves it to the server.
	OpenFor time.Duration
	// Parts is the number of parts of a sequence, 2 to 8, which the server must
	// be set to; 0 means 3.
	Parts int
	// Slot is how long a crafted SYN of tcp-syn or tcp-syn-seq is the same, in whole
	// seconds, as the server is set; 0 means DefaultSlot. One knock of a client counts
	// in each slot, so that copies within one do not matter.
	Slot time.Duration
	// Interval is the time between the parts of a sequence and between copies; 0
	// means DefaultInterval, negative none.
	Interval time.Duration
	// Copies is how often the knock is sent, each time as a fresh frame, against
	// loss on the way; 0 means once.
	Copies int
	// Steps are the ports of a port sequence, in order, the same for every address
	// of the host; SequenceFile names a file of sequences instead, each of which is
	// marked as used when it has left.
	Steps        []sequence.Step
	SequenceFile string
	// RawSYN sends the TCP steps of a port sequence as single packets, which needs
	// Linux and CAP_NET_RAW. Otherwise they are connections that are given up at once.
	RawSYN bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// forTarget fills in what is missing from the configuration of the frame that
// follows, and from the protected port.
func (k Knock) forTarget(cfg *Config, port uint16) Knock {
	if k.ClientID == "" {
		k.ClientID = cfg.ClientID
	}
	if k.Secret.IsZero() && UsesSecret(k.method()) {
		k.Secret = cfg.Secret
	}
	if len(k.Ports) == 0 && k.method() != knockcore.MethodPyknock && k.method() != knockcore.MethodPortSequence {
		k.Ports = []knockcore.PortRange{{Protocol: knockcore.TCP, Low: port, High: port}}
	}
	if k.Session == nil && k.method().CarriesSession() {
		k.Session = cfg.Session
	}
	if k.Now == nil {
		k.Now = cfg.Now
	}
	return k
}

// CanClose reports whether knocks of the method can also close what they opened.
func CanClose(m knockcore.Method) bool { return m == knockcore.MethodPyknock }

// IsDatagram reports whether the method is one that Knock can send: a datagram, or
// a crafted SYN.
func IsDatagram(m knockcore.Method) bool {
	return UsesSecret(m) || m == knockcore.MethodPyknock || m == knockcore.MethodFwknop || m == knockcore.MethodPortSequence
}

func (k *Knock) method() knockcore.Method {
	if k.Method == knockcore.MethodNone {
		return knockcore.MethodUDP
	}
	return k.Method
}

func (k *Knock) udpPort() uint16 {
	if k.method() == knockcore.MethodPyknock {
		return DefaultPyknockPort
	}
	return DefaultKnockPort
}

func (k *Knock) interval() time.Duration {
	if k.Interval == 0 {
		return DefaultInterval
	}
	return k.Interval
}

func (k *Knock) isSequence() bool {
	return k.method() == knockcore.MethodUDPSeq || k.method() == knockcore.MethodUDPPassiveSeq || k.method() == knockcore.MethodTCPSYNSeq
}

// parts is the number of datagrams of one knock.
func (k *Knock) parts() int {
	switch {
	case !k.isSequence():
		return 1
	case k.Parts == 0:
		return wire.DefaultSequenceLength
	default:
		return k.Parts
	}
}

// Validate reports the first thing wrong with the knock.
func (k *Knock) Validate() error {
	if !IsDatagram(k.method()) {
		return fmt.Errorf("checking the knock: %v is no method of knocking at a host; expect udp, udp-seq, udp-passive, udp-passive-seq, tcp-syn, tcp-syn-seq, pyknock, fwknop or port-sequence", k.Method)
	}
	if k.method() == knockcore.MethodPortSequence {
		return k.validateSteps()
	}
	problem := ""
	switch {
	case k.Close && !CanClose(k.method()):
		problem = fmt.Sprintf("%v can't close; what it opened closes by itself", k.method())
	case k.Copies < 0 || k.Copies > MaxCopies:
		problem = fmt.Sprintf("copies are 1 to %d, not %d", MaxCopies, k.Copies)
	case k.method() == knockcore.MethodTCPSYNSeq && k.Parts > wire.MaxSYNSequence:
		problem = fmt.Sprintf("a tcp-syn-seq knock has %d to %d parts, not %d", wire.MinSYNSequence, wire.MaxSYNSequence, k.Parts)
	case k.Slot < 0 || k.Slot%time.Second != 0 || k.Slot != 0 && !k.isSYN():
		problem = "a slot has whole seconds, and only tcp-syn and tcp-syn-seq have one"
	case k.isSYN() && k.Secret.IsZero():
		problem = fmt.Sprintf("%v needs the client's secret", k.method())
	case k.Parts != 0 && (k.Parts < wire.MinUDPSequence || k.Parts > wire.MaxUDPSequence):
		problem = fmt.Sprintf("a sequence has %d to %d parts, not %d", wire.MinUDPSequence, wire.MaxUDPSequence, k.Parts)
	case UsesSecret(k.method()) && k.Address.IsValid():
		problem = fmt.Sprintf("%v opens for the address that it comes from; pyknock and fwknop can name another", k.method())
	case UsesSecret(k.method()) && len(k.Ports) == 0:
		problem = fmt.Sprintf("%v needs the protected port", k.method())
	case k.method() == knockcore.MethodPyknock && k.Secret.IsZero():
		problem = "pyknock needs its pre-shared key"
	case k.method() != knockcore.MethodFwknop && k.OpenFor != 0:
		problem = "only fwknop can ask for a time"
	}
	if problem != "" {
		return errors.New("checking the knock: " + problem)
	}
	if UsesSecret(k.method()) {
		if err := knockcore.ValidateID(k.ClientID); err != nil {
			return fmt.Errorf("checking the knock's client ID: %w", err)
		}
	}
	if k.isSYN() {
		return nil
	}
	// The rest shows when a frame is made.
	local := netip.IPv4Unspecified()
	for _, port := range k.portsOfFrames() {
		if _, err := k.seal(&shot{port: port, session: k.newSession(), local: local}); err != nil {
			return err
		}
	}
	return nil
}
