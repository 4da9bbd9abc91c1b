// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package passive

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dropped reads how many packets nobody looked at for that reason.
func (s *site) dropped(why string) (sum int) {
	s.Helper()
	text, err := s.get("/metrics")
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "caddy_knock_datagrams_dropped_total{") && strings.Contains(line, fmt.Sprintf("why=%q", why)) {
			n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			if err != nil {
				s.Fatal(err)
			}
			sum += int(n)
		}
	}
	return sum
}

// TestDropsAreCounted: a Caddy that does not read for a while loses packets in the
// kernel, and one that reads faster than it decides loses them in its queue. Not one
// of them goes uncounted.
func TestDropsAreCounted(t *testing.T) {
	for _, source := range []string{"packet", "nflog"} {
		t.Run(source, func(t *testing.T) {
			s := newSite(t)
			s.host.RunInput(`table inet theirs {
				counter came { }
				chain count { type filter hook prerouting priority -500; udp dport 62202 counter name came; }
				chain input { type filter hook input priority 0; udp dport 62202 drop; }
			}`, "nft", "-f", "-")
			config := plain(source + " {\nports udp/62202\nqueue 16\nworkers 1\n}")
			var many strings.Builder // so that a look at junk takes its time
			for i := range 500 {
				fmt.Fprintf(&many, "client c%d {\nsecret \"the secret of client number %d\"\nservices ssh\n}\n", i, i)
			}
			s.start(strings.Replace(config, "client alice", many.String()+"client alice", 1))
			s.knocksAndIsIn("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
			if s.dropped("socket_full")+s.dropped("queue_full") != 0 {
				t.Fatal("packets are lost without need")
			}

			// 4 MiB hold about 10,000 packets of this size.
			const junk = 30_000
			c, err := s.stranger.Dial("udp", "198.51.100.1:62202", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := s.caddy.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			payload := bytes.Repeat([]byte{0xa5}, 300)
			for range junk {
				if _, err := c.Write(payload); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.caddy.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			// NFLOG tells of losses with the next packet that comes through.
			came := func() int {
				_, rest, _ := strings.Cut(s.host.Run("nft", "list", "counter", "inet", "theirs", "came"), "packets ")
				n, err := strconv.Atoi(strings.Fields(rest)[0])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			s.caddy.Await(t, "everything to be accounted for", func() bool {
				s.knock("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
				before := came()
				return int(s.received())+s.dropped("socket_full") == before && came() == before
			})
			// Junk may still fill the queue.
			s.knocksUntilIn("--method", "udp-passive", "--knock-port", "62202", "alice@192.0.2.1:22")
			read, socket, queue := int(s.received()), s.dropped("socket_full"), s.dropped("queue_full")
			t.Logf("of %d packets %d were read, %d lost in the kernel; of those read %d lost in the queue", came(), read, socket, queue)
			if came() < junk || socket == 0 || queue == 0 || queue > read {
				t.Error("the counters can't be right")
			}
		})
	}
}
