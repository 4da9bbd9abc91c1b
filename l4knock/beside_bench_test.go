// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package l4knock_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// BenchmarkBeside moves bytes through knock_relay, caddy-l4's proxy and HAProxy in
// TCP mode with splicing, one after the other in one run, each in a process of its
// own before the same upstream:
//
//	go test -run '^$' -bench Beside -benchtime 5x ./l4knock
//
// CPU is that of the process in the middle.
func BenchmarkBeside(b *testing.B) {
	const size = 256 << 20
	upstream := blobServer(b, size)
	relayPort, proxyPort, haPort := program.FreePort(b), program.FreePort(b), program.FreePort(b)
	caddy := program.StartCaddy(b, b.TempDir(), fmt.Sprintf(`{
	admin off
	log {
		level ERROR
	}
	knock {
		client alice {
			secret "%s"
			services blob
		}
		service blob tcp/%d
	}
	layer4 {
		127.0.0.1:%d {
			route {
				knock {
					admit {
						knock_relay %s
					}
				}
			}
		}
		127.0.0.1:%d {
			route {
				proxy %s
			}
		}
	}
}`, secret, relayPort, relayPort, upstream, proxyPort, upstream), fmt.Sprintf("127.0.0.1:%d", relayPort), fmt.Sprintf("127.0.0.1:%d", proxyPort))

	type middle struct {
		name  string
		port  int
		pid   int
		frame bool
	}
	_, port, _ := net.SplitHostPort(upstream)
	direct, _ := strconv.Atoi(port)
	middles := []middle{
		{"direct", direct, os.Getpid(), false},
		{"knock_relay", relayPort, caddy.Cmd.Process.Pid, true},
		{"caddy-l4-proxy", proxyPort, caddy.Cmd.Process.Pid, false},
	}
	if haproxy, err := exec.LookPath("haproxy"); err == nil {
		file := filepath.Join(b.TempDir(), "haproxy.cfg")
		config := fmt.Sprintf("global\n maxconn 1000\n nbthread 2\ndefaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 1m\n timeout server 1m\nfrontend f\n bind 127.0.0.1:%d\n default_backend u\nbackend u\n server s %s\n", haPort, upstream)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			b.Fatal(err)
		}
		ha := program.Start(b, exec.Command(haproxy, "-db", "-f", file))
		ha.AwaitListener(b, fmt.Sprintf("127.0.0.1:%d", haPort))
		middles = append(middles, middle{"haproxy", haPort, ha.Cmd.Process.Pid, false})
	}
	for _, direction := range []string{"down", "up"} {
		for _, m := range middles {
			b.Run(direction+"/"+m.name, func(b *testing.B) {
				b.SetBytes(size)
				before := cpuSeconds(b, m.pid)
				for b.Loop() {
					conn := dial(b, m.port)
					var head []byte
					if m.frame {
						head = frame(b, m.port, nil)
					}
					transfer(b, conn, head, direction, size)
				}
				if m.name != "direct" {
					gigabytes := float64(size) * float64(b.N) / 1e9
					b.ReportMetric((cpuSeconds(b, m.pid)-before)/gigabytes, "cpu-s/GB")
				}
			})
		}
	}
}

// transfer asks for a blob, or sends one and waits for the receipt.
func transfer(b *testing.B, conn *net.TCPConn, head []byte, direction string, size int64) {
	b.Helper()
	defer conn.Close()
	if _, err := conn.Write(append(head, direction[0])); err != nil {
		b.Fatal(err)
	}
	if direction == "down" {
		if n, err := io.Copy(io.Discard, conn); err != nil || n != size {
			b.Fatalf("got %d bytes, %v", n, err)
		}
		return
	}
	block := bytes.Repeat([]byte{1}, 1<<18)
	for sent := int64(0); sent < size; sent += int64(len(block)) {
		if _, err := conn.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	_ = conn.CloseWrite()
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
}

// blobServer sends a blob to who says d, and takes one from who says u.
func blobServer(b *testing.B, size int64) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	block := bytes.Repeat([]byte{1}, 1<<18)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				word := make([]byte, 1)
				if _, err := io.ReadFull(conn, word); err != nil {
					return
				}
				if word[0] == 'u' {
					_, _ = io.Copy(io.Discard, conn)
					_, _ = conn.Write(word)
					return
				}
				for sent := int64(0); sent < size; sent += int64(len(block)) {
					if _, err := conn.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// cpuSeconds is the processor time that a process has used.
func cpuSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(string(f))
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100
}
