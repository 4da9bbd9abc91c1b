// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package relay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Benchmarks have their peers in processes of their own, so that what this process
// spends is what the relay costs. A test binary that finds this variable set is
// such a peer.
const peerEnv = "CADDY_KNOCK_RELAY_PEER"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(peerEnv) {
	case "":
		os.Exit(m.Run())
	case "server":
		err = serverPeer()
	case "client":
		err = clientPeer()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Every job starts with 9 bytes from the client: what, and how many bytes.
const (
	jobUpload   = 'u'
	jobDownload = 'd'
	jobBoth     = 'b'
	jobEcho     = 'e' // as many round trips of 64 bytes

	peerBuffer = 128 << 10
	echoSize   = 64
)

// serverPeer serves jobs on a TCP port until its input ends. Every line of that is
// answered with the CPU time used so far, in ns.
func serverPeer() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			fmt.Println(int64(cpuTime()))
		}
		os.Exit(0)
	}()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			var job [9]byte
			for {
				if _, err := io.ReadFull(conn, job[:]); err != nil {
					return
				}
				if doJob(conn, job, false) != nil {
					return
				}
			}
		}()
	}
}

// clientPeer reads "ADDR STREAMS", connects, and then does one "JOB BYTES" after
// the other on all streams at once. "cpu" is answered as by the server.
func clientPeer() error {
	in := bufio.NewScanner(os.Stdin)
	var conns []net.Conn
	for in.Scan() {
		what, rest, _ := strings.Cut(in.Text(), " ")
		if what == "cpu" {
			fmt.Println(int64(cpuTime()))
			continue
		}
		var n int64
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return err
		}
		if len(what) > 1 {
			for _, c := range conns {
				c.Close()
			}
			conns = conns[:0]
			for range n {
				conn, err := net.Dial("tcp", what)
				if err != nil {
					return err
				}
				conns = append(conns, conn)
			}
			fmt.Println("ok")
			continue
		}
		var job [9]byte
		job[0] = what[0]
		binary.BigEndian.PutUint64(job[1:], uint64(n)/uint64(len(conns)))
		errs := make([]error, len(conns))
		var wg sync.WaitGroup
		for i, conn := range conns {
			wg.Go(func() {
				if _, err := conn.Write(job[:]); err != nil {
					errs[i] = err
					return
				}
				errs[i] = doJob(conn, job, true)
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		fmt.Println("ok")
	}
	return in.Err()
}

// doJob does one end of a job.
func doJob(conn net.Conn, job [9]byte, client bool) error {
	n := int64(binary.BigEndian.Uint64(job[1:]))
	switch {
	case job[0] == jobBoth:
		sent := make(chan error, 1)
		go func() { sent <- send(conn, n) }()
		return errors.Join(receive(conn, n), <-sent)
	case job[0] == jobEcho:
		return echo(conn, n, client)
	case (job[0] == jobUpload) == client:
		if err := send(conn, n); err != nil {
			return err
		}
		return receive(conn, 1)
	default:
		if err := receive(conn, n); err != nil {
			return err
		}
		return send(conn, 1)
	}
}

func echo(conn net.Conn, n int64, client bool) error {
	for range n {
		for i := range 2 {
			f := receive
			if (i == 0) == client {
				f = send
			}
			if err := f(conn, echoSize); err != nil {
				return err
			}
		}
	}
	return nil
}

var peerBuffers = sync.Pool{New: func() any { b := make([]byte, peerBuffer); return &b }}

func send(conn net.Conn, n int64) error {
	buf := peerBuffers.Get().(*[]byte)
	defer peerBuffers.Put(buf)
	for n > 0 {
		m, err := conn.Write((*buf)[:min(n, peerBuffer)])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}

func receive(conn net.Conn, n int64) error {
	buf := peerBuffers.Get().(*[]byte)
	defer peerBuffers.Put(buf)
	for n > 0 {
		m, err := conn.Read((*buf)[:min(n, peerBuffer)])
		n -= int64(m)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// peer is a child process, told what to do line by line.
type peer struct {
	tb  testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

func startPeer(tb testing.TB, role string) *peer {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	name := filepath.Join(tb.TempDir(), "peer") // tells profilers who is who
	if err := os.Symlink(self, name); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(name)
	cmd.Env = append(os.Environ(), peerEnv+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &peer{tb, in, bufio.NewReader(out)}
}

func (p *peer) line() string {
	p.tb.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.tb.Fatal(err)
	}
	return strings.TrimSpace(s)
}

// cpu is the CPU time that the peer has used.
func (p *peer) cpu() time.Duration {
	p.tb.Helper()
	if _, err := fmt.Fprintln(p.in, "cpu"); err != nil {
		p.tb.Fatal(err)
	}
	var d time.Duration
	if _, err := fmt.Sscan(p.line(), (*int64)(&d)); err != nil {
		p.tb.Fatal(err)
	}
	return d
}

func (p *peer) do(what string, n int64) {
	p.tb.Helper()
	if _, err := fmt.Fprintln(p.in, what, n); err != nil {
		p.tb.Fatal(err)
	}
	if got := p.line(); got != "ok" {
		p.tb.Fatalf("peer says %q", got)
	}
}
