// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package clienttest is a small knock server for tests of programs that use
// knockclient, as net/http/httptest is for HTTP. It keeps no memory of nonces and
// must not guard anything.
package clienttest

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// Answer is how the server deals with frames that ask for a proof.
type Answer int

// The answers.
const (
	// Prove sends the right proof.
	Prove Answer = iota
	// ProveWrongly sends a proof made with another secret.
	ProveWrongly
	// ProveShortly sends the first half of the proof and closes.
	ProveShortly
	// Close closes the connection.
	Close
	// Silence keeps the connection open and sends nothing.
	Silence
)

// Server is a listener on loopback that admits one client.
type Server struct {
	// Client and Secret are whom it admits.
	Client string
	Secret knockcore.Secret
	// HintNone is its hint mode.
	HintNone bool
	// Port is the protected port; 0 means the one that it listens on.
	Port uint16
	// Answer is how it answers to those who ask for a proof.
	Answer Answer
	// Serve gets every admitted connection, with its frame; what was read behind
	// the frame is there again. The server closes the connection afterwards.
	Serve func(conn Conn, frame *wire.TCPFrame)
	// Cover gets every other connection; nil closes it.
	Cover func(conn Conn)

	*running
}

// running is what a started server has.
type running struct {
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[net.Conn]struct{} // nil when stopped
	frames   []*wire.TCPFrame
}

// Conn is a TCP connection of the server with what was read ahead. It hides
// what the TCP connection could do beyond net.Conn, since that would pass by
// what was read ahead.
type Conn struct {
	net.Conn
	r io.Reader
}

// Read reads what was read ahead, then from the connection.
func (c Conn) Read(b []byte) (int, error) { return c.r.Read(b) }

// CloseWrite ends the stream to the client.
func (c Conn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// Start listens on a free port of 127.0.0.1 and closes everything when the test
// ends.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal("Listening:", err)
	}
	s.running = &running{listener: listener, conns: make(map[net.Conn]struct{})}
	if s.Port == 0 {
		s.Port = uint16(listener.Addr().(*net.TCPAddr).Port)
	}
	s.wg.Go(s.accept)
	tb.Cleanup(s.stop)
}

func (s *Server) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// Addr is the address it listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Frames lists the frames that it admitted.
func (s *Server) Frames() []*wire.TCPFrame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*wire.TCPFrame(nil), s.frames...)
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.conns == nil {
			s.mu.Unlock()
			_ = conn.Close()
			return
		}
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() {
			s.handle(conn)
			_ = conn.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, conn)
		})
	}
}

func (s *Server) handle(tcp net.Conn) {
	client := &knockcore.Client{ID: s.Client, Secrets: []knockcore.Secret{s.Secret}}
	verdict, head, err := s.read(tcp, client)
	conn := Conn{tcp, io.MultiReader(bytes.NewReader(head), tcp)}
	frame := verdict.Frame
	now, window := time.Now().UnixMilli(), knockcore.DefaultWindow.Milliseconds()
	if err != nil || frame == nil || frame.Time < now-window || frame.Time > now+window {
		if s.Cover != nil {
			s.Cover(conn)
		}
		return
	}
	s.mu.Lock()
	s.frames = append(s.frames, frame)
	s.mu.Unlock()
	if frame.WantProof && !s.prove(tcp, frame, verdict.Credential) {
		return
	}
	if s.Serve != nil {
		conn.r = io.MultiReader(bytes.NewReader(head[frame.Size:]), tcp)
		s.Serve(conn, frame)
	}
}

// read reads until the verdict is final.
func (s *Server) read(conn net.Conn, client *knockcore.Client) (wire.Verdict, []byte, error) {
	config := wire.StreamConfig{
		Methods:  knockcore.NewMethodSet(knockcore.MethodFrameV1, knockcore.MethodEnvelopeV2),
		HintNone: s.HintNone,
	}
	stream := config.NewStream(knockcore.NewInspectionKeyring(client), s.Port)
	head := make([]byte, 0, stream.MaxNeed())
	for {
		verdict := stream.Check(head)
		if verdict.State != wire.NeedMore {
			return verdict, head, nil
		}
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if n == 0 {
			return verdict, head, err
		}
	}
}

// prove answers to a frame that asks for a proof, and reports whether the
// connection goes on.
func (s *Server) prove(conn net.Conn, frame *wire.TCPFrame, cred *knockcore.Credential) bool {
	proof := frame.ServerProof(cred)
	switch s.Answer {
	case Prove:
		_, err := conn.Write(proof[:])
		return err == nil
	case ProveWrongly:
		proof = frame.ServerProof(&knockcore.Credential{Client: cred.Client, Secret: knockcore.NewSecret([]byte("another secret of 32 bytes length"))})
		_, _ = conn.Write(proof[:])
	case ProveShortly:
		_, _ = conn.Write(proof[:len(proof)/2])
		return false
	case Close:
		return false
	case Silence:
	}
	_, _ = io.Copy(io.Discard, conn)
	return false
}
