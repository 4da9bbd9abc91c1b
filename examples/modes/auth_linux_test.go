// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package modes

import (
	"crypto/rand"
	"testing"
)

func newSession() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return b
}

// TestAuthOnly: one port, open for everybody, and sshd only behind a frame. Caddy
// has no privilege at all.
func TestAuthOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sshd("127.0.0.1")
	s.start("auth-only", noCaps)
	s.unprivileged("0000000000000000")
	s.wantIn(s.proxied())
	s.wantOut(s.ssh("-p", "2222"))
	if _, got := s.say(s.stranger, hostToStranger, ""); got != isCover {
		t.Errorf("a stranger meets %q", got)
	}
	// The frame admits one stream, not the address.
	if _, got := s.frame(s.alice, host4, "alice", nil); got != isSSHD {
		t.Errorf("a frame meets %q", got)
	}
	if _, got := s.say(s.alice, host4, ""); got != isCover {
		t.Errorf("beside it, no frame meets %q", got)
	}
	s.scan("T:22,2222,8080,U:62201", "22/closed/tcp", "2222/open/tcp", "8080/closed/tcp", "62201/closed/udp")
}

// TestKnockAuthOnly: a frame counts behind its knock only, as often as `uses` says.
// Caddy has no privilege at all.
func TestKnockAuthOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sshd("127.0.0.1")
	s.start("knock-auth-only", noCaps)
	s.unprivileged("0000000000000000")
	s.wantIn(s.proxied("--knock", "udp"))
	s.wantOut(s.proxied()) // a frame without a knock
	s.wantOut(s.ssh("-p", "2222"))
	session := newSession()
	if _, got := s.frame(s.alice, host4, "alice", session); got != isCover {
		t.Errorf("a frame before its knock meets %q", got)
	}
	s.knock("alice", 2222, session)
	for i, want := range []string{isSSHD, isSSHD, isCover} { // uses 2
		if _, got := s.frame(s.alice, host4, "alice", session); got != want {
			t.Errorf("frame %d of a knock meets %q, want %q", i+1, got, want)
		}
	}
	// A knock is for its address, its session and its client.
	session = newSession()
	s.knock("alice", 2222, session)
	if _, got := s.frame(s.stranger, hostToStranger, "alice", session); got != isCover {
		t.Errorf("a frame from elsewhere meets %q", got)
	}
	if _, got := s.frame(s.alice, host4, "alice", newSession()); got != isCover {
		t.Errorf("a frame of another session meets %q", got)
	}
	if _, got := s.frame(s.alice, host4, "bob", session); got != isCover {
		t.Errorf("another client's frame meets %q", got)
	}
	if _, got := s.frame(s.alice, host4, "alice", session); got != isSSHD {
		t.Errorf("the frame that belongs to the knock meets %q", got)
	}
	s.scan("T:22,2222,8080,U:62201,62202", "22/closed/tcp", "2222/open/tcp", "8080/closed/tcp", "62201/open|filtered/udp", "62202/closed/udp")
}
