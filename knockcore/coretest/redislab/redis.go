// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package redislab runs real Redis servers for tests, and what may stand between
// them and their clients: a proxy that delays, swallows and cuts.
package redislab

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// Server is a redis-server with a folder of its own.
type Server struct {
	*program.Process
	Address string
	Dir     string

	t    testing.TB
	args []string
}

// Start runs a server on loopback until the test ends. It saves only when it is
// told to. args are added to its command line.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := New(t)
	s.Add(args...)
	s.Run()
	return s
}

// New is Start without starting.
func New(t testing.TB) *Server {
	t.Helper()
	return &Server{t: t, Address: Address(t), Dir: t.TempDir()}
}

// Add adds to the command line.
func (s *Server) Add(args ...string) { s.args = append(s.args, args...) }

// Run starts the server, again after Kill; it finds the data that it saved.
func (s *Server) Run() {
	s.t.Helper()
	s.Process = program.Start(s.t, s.Command())
	s.Await(s.t, "the Redis server", func() bool {
		_, err := Do(s.Address, "PING")
		return err == nil || strings.HasPrefix(err.Error(), "NOAUTH")
	})
}

// Command is what starts the server.
func (s *Server) Command() *exec.Cmd {
	host, port, _ := net.SplitHostPort(s.Address)
	args := append([]string{"--bind", host, "--port", port, "--dir", s.Dir, "--save", "", "--appendonly", "no", "--daemonize", "no"}, s.args...)
	return exec.Command(program.Need(s.t, "redis-server"), args...)
}

// Do sends a command to the server; an error fails the test.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	answer, err := Do(s.Address, args...)
	if err != nil {
		s.t.Fatalf("redis %s: %v", strings.Join(args, " "), err)
	}
	return answer
}

// Info is a field of INFO.
func (s *Server) Info(name string) string {
	s.t.Helper()
	for line := range strings.Lines(s.Do("INFO", "everything")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return value
		}
	}
	s.t.Fatalf("INFO has no %s", name)
	return ""
}

// Forgive makes the epoch of a fleet old, so that a test need not wait until
// frames are taken again after its beginning. With no epoch it begins one.
func (s *Server) Forgive(prefix string) {
	s.t.Helper()
	s.Do("HSET", "{"+prefix+"}:epoch", "base", "1")
	if s.Do("HEXISTS", "{"+prefix+"}:epoch", "id") == "0" {
		s.Do("HSET", "{"+prefix+"}:epoch", "id", "0123456789abcdef", "run", s.Info("run_id"), "repl", s.Info("master_replid"))
		s.Do("SET", "{"+prefix+"}:seq", strconv.FormatInt(time.Now().UnixMicro(), 10))
	}
}

// Do sends one command over a connection of its own. Arrays are not read but
// their length.
func Do(address string, args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '-':
		return "", fmt.Errorf("%s", line[1:])
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", err
		}
		buf := make([]byte, n)
		for at := 0; at < n; {
			m, err := r.Read(buf[at:])
			if err != nil {
				return "", err
			}
			at += m
		}
		return string(buf), nil
	default:
		return line[1:], nil
	}
}

// Config writes a configuration file into the server's folder.
func (s *Server) Config(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Address finds a TCP address on loopback that nobody listens on, with a port that
// the kernel gives to no outgoing connection: servers that end and come back must
// find it free, and clients that try meanwhile must not meet themselves. It is the
// test's until its end.
func Address(t testing.TB) string {
	t.Helper()
	return program.FreeAddress(t)
}

// Read reads a file of the server's folder.
func (s *Server) Read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}
