// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// relayers are ways to relay between two connections, until both have ended.
var relayers = []struct {
	name string
	run  func(down, up net.Conn)
}{
	{"engine", func(down, up net.Conn) { Run(context.Background(), down, nil, up, &Options{}) }},
	{"iocopy", func(down, up net.Conn) {
		pair(down, up, func(dst, src net.Conn) { _, _ = io.Copy(dst, src) })
	}},
	{"copy32k", func(down, up net.Conn) {
		pair(down, up, func(dst, src net.Conn) {
			_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 32<<10))
		})
	}},
	{"caddyl4", func(down, up net.Conn) {
		// As caddy-l4's proxy: a connection type that hides ReadFrom and WriteTo, and
		// a TeeReader that is read into io.Discard.
		cx := struct{ net.Conn }{down}
		pair(down, up, func(dst, src net.Conn) {
			if src == down {
				_, _ = io.Copy(io.Discard, io.TeeReader(cx, up))
			} else {
				_, _ = io.Copy(cx, up)
			}
		})
	}},
	{"direct", nil},
}

// pair copies both ways and closes each end after its copy.
func pair(down, up net.Conn, oneWay func(dst, src net.Conn)) {
	var wg sync.WaitGroup
	for _, d := range [][2]net.Conn{{up, down}, {down, up}} {
		wg.Go(func() {
			oneWay(d[0], d[1])
			_ = d[0].(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
	down.Close()
	up.Close()
}

// serveRelay relays everything that comes to the returned address to upstream.
func serveRelay(tb testing.TB, upstream string, run func(down, up net.Conn)) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	tb.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", upstream)
			if err != nil {
				tb.Error(err)
				down.Close()
				return
			}
			wg.Go(func() { run(down, up) })
		}
	})
	return ln.Addr().String()
}

// BenchmarkThroughput moves 1 GiB an operation, or 1 GiB each way. All processes
// together have the machine's cores, so that with few cores the peers' own work sets
// a limit; what the relay takes of it is cpu-s/GB.
func BenchmarkThroughput(b *testing.B) {
	const size = 1 << 30
	for _, streams := range []int64{1, 64} {
		for _, job := range []string{"up", "down", "both"} {
			for _, rel := range relayers {
				b.Run(fmt.Sprintf("streams=%d/%s/%s", streams, job, rel.name), func(b *testing.B) {
					client, server := startPeer(b, "client"), startPeer(b, "server")
					address := server.line()
					if rel.run != nil {
						address = serveRelay(b, address, rel.run)
					}
					client.do(address, streams)
					client.do(job[:1], 64<<20) // warm up
					moved := int64(size)
					if job == "both" {
						moved *= 2
					}
					b.SetBytes(moved)
					cpu, all := cpuTime(), client.cpu()+server.cpu()
					for b.Loop() {
						client.do(job[:1], size)
					}
					cpu = cpuTime() - cpu
					all = client.cpu() + server.cpu() - all + cpu
					b.ReportMetric(cpu.Seconds()/(float64(b.N)*float64(moved)/1e9), "cpu-s/GB")
					b.ReportMetric(all.Seconds()/(float64(b.N)*float64(moved)/1e9), "with-peers-cpu-s/GB")
					client.in.Close()
				})
			}
		}
	}
}

// BenchmarkEcho sends 64 bytes to and fro, 1,000 times an operation.
func BenchmarkEcho(b *testing.B) {
	for _, rel := range relayers {
		b.Run(rel.name, func(b *testing.B) {
			const trips = 1000
			client := startPeer(b, "client")
			address := startPeer(b, "server").line()
			if rel.run != nil {
				address = serveRelay(b, address, rel.run)
			}
			client.do(address, 1)
			b.ReportAllocs()
			cpu := cpuTime()
			for b.Loop() {
				client.do("e", trips)
			}
			cpu = cpuTime() - cpu
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*trips), "ns/trip")
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N*trips), "cpu-ns/trip")
			client.in.Close()
		})
	}
}

// BenchmarkIdle is what 1,000 relays cost that have moved bytes and wait. The
// sockets are the same for all, and "none" has nothing but those.
func BenchmarkIdle(b *testing.B) {
	var held sync.Map
	none := struct {
		name string
		run  func(down, up net.Conn)
	}{"none", func(down, up net.Conn) { held.Store(down, up) }}
	for _, rel := range append(relayers[:len(relayers)-1:len(relayers)-1], none) {
		b.Run(rel.name, func(b *testing.B) {
			for b.Loop() { // nothing is timed, and the metrics come after
			}
			const relays, size = 1000, 64 << 10
			client := startPeer(b, "client")
			address := startPeer(b, "server").line()
			var before, after runtime.MemStats
			measure := func(m *runtime.MemStats) int {
				for range 3 { // pools need more than one, and their pipes a while to be closed
					runtime.GC()
					time.Sleep(100 * time.Millisecond)
				}
				runtime.ReadMemStats(m)
				return openFiles(b)
			}
			fds := measure(&before)
			goroutines := runtime.NumGoroutine()
			address = serveRelay(b, address, rel.run)
			client.do(address, relays)
			if rel.name != "none" {
				client.do("u", relays*size)
				client.do("d", relays*size)
			}
			fds = measure(&after) - fds
			heap, stack := int64(after.HeapAlloc-before.HeapAlloc), int64(after.StackInuse-before.StackInuse)
			b.ReportMetric(float64(heap+stack)/relays, "B/relay")
			b.ReportMetric(float64(stack)/relays, "stack-B/relay")
			b.ReportMetric(float64(fds)/relays, "fds/relay")
			b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/relays, "goroutines/relay")
			b.ReportMetric(0, "ns/op")
			client.in.Close()
			held.Range(func(down, up any) bool { down.(net.Conn).Close(); up.(net.Conn).Close(); return true })
			held.Clear()
		})
	}
}

func openFiles(tb testing.TB) int {
	tb.Helper()
	d, err := os.ReadDir("/dev/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(d)
}
