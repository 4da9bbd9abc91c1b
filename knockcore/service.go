// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Protocol is a transport protocol.
type Protocol uint8

// The protocols; ProtocolAny stands where a knock names none.
const (
	ProtocolAny Protocol = 0
	TCP         Protocol = 6
	UDP         Protocol = 17
)

// String returns "tcp", "udp" or "any".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	default:
		return "any"
	}
}

// PortRange is a protocol and a range of ports, both ends included.
type PortRange struct {
	Protocol Protocol
	Low      uint16
	High     uint16
}

// ParsePortRange reads "tcp/22", "udp/60000-61000"; a number alone means TCP.
// Ports are 1 to 65535.
func ParsePortRange(s string) (PortRange, error) {
	r, err := parsePortRange(s)
	if err == nil {
		return r, nil
	}
	// Others write tcp:22, 22/tcp or TCP/22.
	proto, ports, _ := strings.Cut(strings.ReplaceAll(strings.ToLower(s), ":", "/"), "/")
	if proto != "tcp" && proto != "udp" {
		proto, ports = ports, proto
	}
	if meant, otherwise := parsePortRange(proto + "/" + ports); otherwise == nil {
		err = fmt.Errorf("port %q: write %v", s, meant)
	}
	return r, err
}

func parsePortRange(s string) (PortRange, error) {
	proto, ports, found := strings.Cut(s, "/")
	if !found {
		proto, ports = "tcp", s
	}
	var r PortRange
	switch proto {
	case "tcp":
		r.Protocol = TCP
	case "udp":
		r.Protocol = UDP
	default:
		return r, fmt.Errorf("port %q: unknown protocol %q; expect tcp or udp, such as tcp/22", s, proto)
	}
	low, high, isRange := strings.Cut(ports, "-")
	if !isRange {
		high = low
	}
	var err error
	if r.Low, err = parsePort(low); err != nil {
		return r, fmt.Errorf("port %q: %w", s, err)
	}
	if r.High, err = parsePort(high); err != nil {
		return r, fmt.Errorf("port %q: %w", s, err)
	}
	if r.Low > r.High {
		return r, fmt.Errorf("port %q: the range ends before it begins", s)
	}
	return r, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port from 1 to 65535", s)
	}
	return uint16(n), nil
}

// String writes the range as ParsePortRange reads it.
func (r PortRange) String() string {
	if r.Low == r.High {
		return fmt.Sprintf("%v/%d", r.Protocol, r.Low)
	}
	return fmt.Sprintf("%v/%d-%d", r.Protocol, r.Low, r.High)
}

// Contains reports whether the port lies in the range; ProtocolAny fits every
// protocol.
func (r PortRange) Contains(proto Protocol, port uint16) bool {
	return (proto == ProtocolAny || proto == r.Protocol) && r.Low <= port && port <= r.High
}

// Service is what is protected. It is immutable.
type Service struct {
	// Name names the service: 1 to 65,535 bytes without blanks.
	Name string
	// Ports are those that clients connect to.
	Ports []PortRange
	// OpenFor is how long a grant lasts if neither the knock nor the client says.
	OpenFor time.Duration
	// MaxOpen caps every grant; 0 means no cap.
	MaxOpen time.Duration
	// RequireSession makes a TCP frame wait for a knock with its session ID.
	RequireSession bool
	// Firewall names the firewall that opens windows, "" for none.
	Firewall string
	// CutOnExpire ends established flows when their grant ends (on_expire cut).
	CutOnExpire bool
	// Destinations are addresses of routed hosts, such as containers, that the
	// service's ports are gated on besides this host's own.
	Destinations []netip.Prefix
	// Uses is how many TCP frames a knock pays for where RequireSession is set; 0
	// means 1.
	Uses int
	// CloseAfterAuth closes the window of a knock as soon as its last frame has
	// passed. Windows of others for the same address stay.
	CloseAfterAuth bool
	// Door marks what stands for the commands of a port-sequence door: it has no
	// ports, and only knocks that name it open it.
	Door bool
}

// DefaultOpenFor is how long a grant lasts where nobody says.
const DefaultOpenFor = 30 * time.Second

// Validate reports the first thing wrong with the service.
func (s *Service) Validate() error {
	if err := ValidateID(s.Name); err != nil {
		return fmt.Errorf("service %q: %w", s.Name, err)
	}
	if len(s.Ports) == 0 && !s.Door {
		return fmt.Errorf("service %s has no port; write for example `service %s tcp/22`", s.Name, s.Name)
	}
	if (s.Uses > 0 || s.CloseAfterAuth) && !s.RequireSession {
		return fmt.Errorf("service %s: uses and close_after_auth count TCP frames that follow a knock: add require_session", s.Name)
	}
	if s.CutOnExpire && s.CloseAfterAuth {
		return fmt.Errorf("service %s: close_after_auth ends the grant that on_expire cut would end the stream with: choose one of them", s.Name)
	}
	if s.OpenFor < 0 || s.MaxOpen < 0 {
		return fmt.Errorf("service %s: times must not be negative", s.Name)
	}
	if s.MaxOpen > 0 && s.OpenFor > s.MaxOpen {
		return fmt.Errorf("service %s: open_for %v is longer than max_open %v", s.Name, s.OpenFor, s.MaxOpen)
	}
	return nil
}

// Has reports whether clients connect to this port for the service.
func (s *Service) Has(proto Protocol, port uint16) bool {
	for _, r := range s.Ports {
		if r.Contains(proto, port) {
			return true
		}
	}
	return false
}

// Length is how long a grant for client lasts if the knock asks for requested
// (0: it does not say): the asked-for time, else the client's ttl, else the
// service's open_for; cut to the client's max_ttl and the service's max_open.
func (s *Service) Length(client *Client, requested time.Duration) time.Duration {
	length := requested
	if length <= 0 {
		length = client.TTL
	}
	if length <= 0 {
		length = s.OpenFor
	}
	if length <= 0 {
		length = DefaultOpenFor
	}
	if client.MaxTTL > 0 {
		length = min(length, client.MaxTTL)
	}
	if s.MaxOpen > 0 {
		length = min(length, s.MaxOpen)
	}
	return length
}
