// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// BenchmarkSocketToDecision counts the datagrams per second that are decided on,
// while a sender (in this process, on the same processors) sends as many as it
// can. What it sends beyond that is dropped and told as sent/s.
func BenchmarkSocketToDecision(b *testing.B) {
	lab := netlab.New(b)
	server, client := lab.NS("server"), lab.NS("client")
	lab.Link(server, []string{"192.0.2.1/24"}, client, []string{"192.0.2.2/24"})
	for _, way := range []struct {
		name string
		from *netlab.NS
		to   string
	}{{"veth", client, "192.0.2.1"}, {"loopback", server, "127.0.0.1"}} {
		for _, clients := range []int{1, 100} {
			for _, accept := range []bool{false, true} {
				verdict := map[bool]string{false: "reject", true: "accept"}[accept]
				b.Run(fmt.Sprintf("%s/clients=%d/%s", way.name, clients, verdict), func(b *testing.B) {
					everybody := crowd(clients)
					limits := knockcore.NewLimiter(knockcore.LimitConfig{})
					dispatcher := NewDispatcher(DispatchConfig{Methods: allDatagrams}, benchGate(b, everybody, limits))
					var decided atomic.Int64
					enough := make(chan struct{})
					queue := NewQueue(QueueConfig{Limits: limits, Handle: func(ctx context.Context, p *Packet) {
						err := dispatcher.Decide(ctx, p)
						if (err == nil) != accept && knockcore.ReasonOf(err) != knockcore.ReasonReplay {
							b.Error(err)
						}
						if decided.Add(1) == int64(b.N) {
							close(enough)
						}
					}})
					stats := new(Stats)
					packets := NewSwitch(stats)
					packets.Attach(queue)
					var u *UDP
					var err error
					server.Do(func() { u, err = ListenUDP(netip.MustParseAddrPort("0.0.0.0:62201")) })
					if err != nil {
						b.Fatal(err)
					}
					ctx, cancel := context.WithCancel(context.Background())
					served := make(chan error)
					go func() { served <- u.Serve(ctx, packets.Sink) }()

					batch := make([]ipv4.Message, 64)
					payloads := make([][]byte, max(64, min(b.N, 1<<20)))
					for i := range payloads {
						if accept {
							payloads[i] = benchKnock(b, knockcore.MethodUDP, everybody[clients-1], i)
						} else if i == 0 {
							payloads[i] = junkKnock()
						} else {
							payloads[i] = payloads[0]
						}
					}
					var conn net.Conn
					way.from.Do(func() { conn, err = net.Dial("udp4", way.to+":62201") })
					if err != nil {
						b.Fatal(err)
					}
					sender := ipv4.NewPacketConn(conn.(*net.UDPConn))
					sent := 0
					b.ResetTimer()
					for done := false; !done; {
						select {
						case <-enough:
							done = true
						default:
							for i := range batch {
								batch[i].Buffers = [][]byte{payloads[(sent+i)%len(payloads)]}
							}
							n, _ := sender.WriteBatch(batch, 0)
							sent += max(0, n)
						}
					}
					b.StopTimer()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decided/s")
					b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "sent/s")
					cancel()
					<-served
					_ = u.Close()
					_ = conn.Close()
					queue.Close(context.Background())
				})
			}
		}
	}
}
