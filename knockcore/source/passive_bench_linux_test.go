// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// BenchmarkPassive sends datagrams over veth as fast as one core does, to a port
// that is watched and to another one. CPU-ns/op is the processor's time of all
// threads but the one that sends; lost/op is what the socket had no room for, of
// those that the filter let through.
func BenchmarkPassive(b *testing.B) {
	netlab.Need(b, "nft")
	for name, open := range passiveSources {
		for _, watched := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/watched=%v", name, watched), func(b *testing.B) {
				lab := netlab.New(b)
				host, peer := lab.NS("host"), lab.NS("peer")
				lab.Link(host, []string{"192.0.2.1/24"}, peer, []string{"192.0.2.2/24"})
				host.RunInput("table ip shut {\nchain in {\ntype filter hook input priority 0;\nudp dport 60000-65000 drop\n}\n}", "nft", "-f", "-")
				source, err := open(host)
				if err != nil {
					b.Fatal(err)
				}
				defer source.Close()
				release, err := source.Watch(Watching{Filter: udpPort(62202)})
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = release() }()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				var read atomic.Uint64
				served := make(chan error, 1)
				go func() { served <- source.Serve(ctx, func(*Packet) { read.Add(1) }) }()
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				port := 62202
				if !watched {
					port++
				}
				var conn net.Conn
				peer.Do(func() { conn, err = net.Dial("udp4", fmt.Sprintf("192.0.2.1:%d", port)) })
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				payload := make([]byte, 114)
				before := cpuOfOthers(b)
				b.ResetTimer()
				sent := 0
				for ; sent < b.N; sent++ {
					if _, err := conn.Write(payload); err != nil {
						b.Fatal(err)
					}
				}
				for watched && read.Load()+source.Dropped() < uint64(sent) {
					time.Sleep(time.Millisecond)
				}
				b.StopTimer()
				b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "packets/s")
				b.ReportMetric(float64(cpuOfOthers(b)-before)/float64(sent), "CPU-ns/op")
				b.ReportMetric(float64(source.Dropped())/float64(sent), "lost/op")
				cancel()
				if err := <-served; err != nil {
					b.Error(err)
				}
			})
		}
	}
}

// cpuOfOthers is the processor's time of all threads of the process but this one.
func cpuOfOthers(b *testing.B) time.Duration {
	var all, this unix.Timespec
	if err := errors.Join(unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &all), unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &this)); err != nil {
		b.Fatal(err)
	}
	return time.Duration(all.Nano() - this.Nano())
}
