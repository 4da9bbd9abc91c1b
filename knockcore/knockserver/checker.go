// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// DefaultWait is how long a stream may take to deliver its frame.
const DefaultWait = 3 * time.Second

// proofTimeout bounds the writing of 50 bytes to a fresh connection.
const proofTimeout = 5 * time.Second

// Checker decides on the heads of streams: it reads, without losing a byte,
// until it knows whether a valid frame leads. It is what the Caddy handler, the
// listener wrapper and NewListener share. It is immutable after use.
type Checker struct {
	// Frames says which frames are accepted.
	Frames wire.StreamConfig
	// Port is the port inside the frame; 0 means the connection's local port.
	Port uint16
	// Service is what the stream is for; "" means the service that lists the port.
	Service string
	// Wait is how long the frame may take, 0 for DefaultWait.
	Wait time.Duration
	// Pending bounds the undecided streams; it must be set.
	Pending *Pending
}

// Result is what became of a stream.
type Result struct {
	// Peer is nil if the stream was not admitted.
	Peer *Peer
	// Rest holds the bytes that were read and belong to what comes next: those
	// behind the frame if the stream was admitted, otherwise all of them.
	Rest []byte
	// Err says why it was not admitted: a *knockcore.Refusal or a Reason.
	Err error
	// NearMiss is the ID of the client whose hint the frame fitted before it
	// failed: more than a foreign stream.
	NearMiss string

	evicted bool // it had to make room for others
	barred  bool // it may not even be read
}

// KnockOf makes the gatekeeper's view of a frame.
func KnockOf(frame *wire.TCPFrame, client *knockcore.Client, source netip.Addr, service string) knockcore.Knock {
	k := knockcore.Knock{
		Client: client, Method: frame.Method, Source: source, Session: frame.Session,
		Time:   time.UnixMilli(frame.Time),
		Replay: knockcore.NewReplayKey(knockcore.ReplayTCP, client.ID, frame.ReplayNonce()),
	}
	if service != "" {
		k.Services = []string{service}
	} else {
		k.Ports = []knockcore.PortRange{{Protocol: knockcore.TCP, Low: frame.Port, High: frame.Port}}
	}
	return k
}

// PortOf is the port that frames on this connection have to name.
func (c *Checker) PortOf(conn net.Conn) uint16 {
	if c.Port != 0 {
		return c.Port
	}
	return AddrPortOf(conn.LocalAddr()).Port()
}

func (c *Checker) wait() time.Duration {
	if c.Wait <= 0 {
		return DefaultWait
	}
	return c.Wait
}

// AddrPortOf is the address and port of a TCP or UDP address, the zero value
// for other kinds. IPv4-mapped addresses are unmapped.
func AddrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	case nil:
		return ap
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Check reads the head of conn and decides, within Wait and as long as ctx lasts.
// stream continues an earlier look at the same connection, nil for a fresh one.
// The connection is never closed and has no read deadline afterwards. If the
// frame asked for a server proof, it has been written.
func (c *Checker) Check(ctx context.Context, gate *knockcore.Gatekeeper, conn net.Conn, stream *wire.Stream) Result {
	source := AddrPortOf(conn.RemoteAddr()).Addr()
	if stream == nil {
		s := c.Frames.NewStream(gate.Keyring(), c.PortOf(conn))
		stream = &s
	}
	stream.From(source)
	deadline := time.Now().Add(c.wait())
	head, verdict, evicted, err := c.read(ctx, conn, stream, deadline)
	if verdict.State != wire.Authentic {
		switch {
		case err != nil:
		case verdict.ClientID != "":
			err = &knockcore.Refusal{Reason: verdict.Reason, Client: verdict.ClientID}
		default:
			err = verdict.Reason
		}
		method := methodOf(c.Frames.Methods, head)
		gate.Refuse(method, source, err)
		if verdict.ClientID != "" && verdict.Reason == knockcore.ReasonAuthFailed {
			gate.Failed(method, source)
		}
		return Result{Rest: head, Err: err, NearMiss: verdict.ClientID, evicted: evicted}
	}
	frame, client := verdict.Frame, verdict.Credential.Client
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(c.wait()))
	defer cancel()
	grants, err := gate.Admit(ctx, KnockOf(frame, client, source, c.Service))
	if err != nil {
		return Result{Rest: head, Err: err, NearMiss: client.ID}
	}
	stream.Admitted()
	peer := &Peer{Grant: grants[0], Time: time.UnixMilli(frame.Time), KnockMethod: frame.KnockMethod, Extensions: frame.Extensions}
	if frame.WantProof {
		if err := prove(conn, frame, verdict.Credential); err != nil {
			// The nonce is spent, and the peer is the client, which is gone.
			return Result{Err: &knockcore.Refusal{
				Reason: knockcore.ReasonMalformed, Client: client.ID, Detail: "sending the server proof: " + err.Error(),
			}}
		}
	}
	return Result{Peer: peer, Rest: head[frame.Size:]}
}

// read collects bytes until the stream is decided, the time is up or the peer
// stops sending.
func (c *Checker) read(ctx context.Context, conn net.Conn, stream *wire.Stream, deadline time.Time) (head []byte, verdict wire.Verdict, evicted bool, err error) {
	place, err := c.Pending.enter(conn, deadline)
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, func() { c.Pending.interrupt(place) })()
	}
	head = make([]byte, 0, 512)
	verdict = stream.Check(head)
	for err == nil && verdict.State == wire.NeedMore {
		if len(head) == cap(head) {
			head = append(make([]byte, 0, 2*cap(head)), head...)
		}
		var n int
		n, err = conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if n > 0 {
			verdict = stream.Check(head)
		}
	}
	evicted = c.Pending.leave(place)
	switch {
	case verdict.State != wire.NeedMore:
		err = nil
	case evicted:
		err = &knockcore.Refusal{Reason: knockcore.ReasonLimited, Detail: "too many undecided streams"}
	case ctx.Err() != nil:
		err = &knockcore.Refusal{Reason: knockcore.ReasonMalformed, Detail: "the wait for a frame was cut short"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &knockcore.Refusal{Reason: knockcore.ReasonMalformed, Detail: "no whole frame in time"}
	default: // the peer stopped sending, or went away
		err = &knockcore.Refusal{Reason: knockcore.ReasonMalformed, Detail: "the stream ended before a whole frame"}
	}
	return head, verdict, evicted, err
}

func prove(conn net.Conn, frame *wire.TCPFrame, cred *knockcore.Credential) error {
	proof := frame.ServerProof(cred)
	if err := conn.SetWriteDeadline(time.Now().Add(proofTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(proof[:]); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// methodOf guesses which method a refused head was meant as, for metrics.
func methodOf(enabled knockcore.MethodSet, head []byte) knockcore.Method {
	if enabled.Has(knockcore.MethodFrameV1) && (!enabled.Has(knockcore.MethodEnvelopeV2) || len(head) > 0 && head[0] == 1) {
		return knockcore.MethodFrameV1
	}
	return knockcore.MethodEnvelopeV2
}
