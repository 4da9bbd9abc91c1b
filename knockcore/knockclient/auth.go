// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

var (
	// ErrNoProof means that the server closed the connection, or said too little,
	// where its proof was expected: it refused the frame, or it gives no proofs.
	ErrNoProof = errors.New("no server proof")
	// ErrWrongProof means that something else came than the proof: the frame was
	// refused and the cover answers, or the other side is not the server.
	ErrWrongProof = errors.New("wrong server proof")
)

// Auth sends a frame on a connection on which nothing was sent yet and, if the
// configuration asks for it, waits for the server's proof. It reads nothing
// else, and no more than the proof. It honours ctx and Config.Timeout, sets no
// deadline that stays, and leaves a deadline of the caller's alone.
//
// On any error the connection is closed: a second frame on it could not work.
func Auth(ctx context.Context, conn net.Conn, cfg Config) error {
	err := auth(ctx, conn, &cfg)
	if err != nil {
		_ = conn.Close()
	}
	return err
}

func auth(ctx context.Context, conn net.Conn, cfg *Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	port := cfg.Port
	if port == 0 {
		var err error
		if port, err = remotePort(conn); err != nil {
			return err
		}
	}
	cred, frame := cfg.credential(), cfg.frame(port)
	b, err := seal(&frame, cred)
	if err != nil {
		return err
	}
	if timeout := cfg.timeout(); timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return interruptible(ctx, conn, func() error {
		if _, err := conn.Write(b); err != nil {
			return fmt.Errorf("sending the frame: %w", err)
		}
		if !frame.WantProof {
			return nil
		}
		return readProof(conn, &frame, cred)
	})
}

// interruptible runs f and makes its reads and writes fail when ctx ends. The
// deadline for that is set only then, after which the connection is of no use;
// connections that know no deadlines (channels of SSH) are closed.
func interruptible(ctx context.Context, conn net.Conn, f func() error) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		if conn.SetDeadline(time.Unix(1, 0)) != nil {
			_ = conn.Close()
		}
	})
	err := f()
	if stop() {
		return err
	}
	<-interrupted
	switch {
	case errors.Is(err, ErrWrongProof):
		return err
	case errors.Is(err, ErrNoProof):
		return fmt.Errorf("%w: %w", ErrNoProof, context.Cause(ctx))
	default:
		return fmt.Errorf("authenticating: %w", context.Cause(ctx))
	}
}

// proofHeadLen is how much of a proof needs no key: version, type, nonce.
const proofHeadLen = 18

// readProof reads exactly one proof. What differs in the part that is no secret
// is refused as soon as it is there: a cover may say less than a proof has and
// wait.
func readProof(conn net.Conn, frame *wire.TCPFrame, cred *knockcore.Credential) error {
	want := frame.ServerProof(cred)
	var proof [wire.ServerProofLen]byte
	for n := 0; n < len(proof); {
		m, err := conn.Read(proof[n:])
		n += m
		if head := min(n, proofHeadLen); !bytes.Equal(proof[:head], want[:head]) {
			return fmt.Errorf("%w: the answer begins with %q", ErrWrongProof, proof[:min(n, 16)])
		}
		switch {
		case n == len(proof):
		case err != nil && n == 0 && errors.Is(err, io.EOF):
			return fmt.Errorf("%w: the connection was closed", ErrNoProof)
		case err != nil && n == 0:
			return fmt.Errorf("%w: %w", ErrNoProof, err)
		case err != nil:
			return fmt.Errorf("%w: only %d of %d bytes came: %w", ErrNoProof, n, len(proof), err)
		}
	}
	if !frame.VerifyServerProof(cred, proof[:]) {
		return fmt.Errorf("%w: it was made with another secret, or for another port", ErrWrongProof)
	}
	return nil
}

// remotePort finds the port that the connection goes to.
func remotePort(conn net.Conn) (uint16, error) {
	addr := conn.RemoteAddr()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.Port != 0 {
		return uint16(tcp.Port), nil
	}
	if addr != nil {
		if ap, err := netip.ParseAddrPort(addr.String()); err == nil && ap.Port() != 0 {
			return ap.Port(), nil
		}
	}
	return 0, fmt.Errorf("finding the protected port: the connection's remote address %v has no port; set Config.Port", addr)
}
