// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doors

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// strictDoors are doors of the same kind, with and without `strict`.
const strictDoors = `{
	admin localhost:2019
	knock {
		client alice {
			methods port-sequence
			services ssh
		}
		service ssh tcp/22 {
			firewall nftables
		}
		firewall nftables
		source SOURCE {
			methods port-sequence
		}
		door lax {
			client alice
			sequence tcp/7000 tcp/9000 udp/8000
			flags syn
			service ssh
		}
		door strict {
			client alice
			sequence tcp/7000 tcp/9000 udp/8000
			flags syn
			strict
			service ssh
		}
		door rising {
			client alice
			sequence tcp/7100 tcp/7110 tcp/7120
			flags syn
			service ssh
		}
		door rising-strict {
			client alice
			sequence tcp/7100 tcp/7110 tcp/7120
			flags syn
			strict
			service ssh
		}
		door end {
			client alice
			sequence tcp/1111
			flags syn
			service ssh
		}
	}
}
`

// TestStrict: what comes between two steps spoils an attempt at a strict door, if it
// is for a port of no service.
func TestStrict(t *testing.T) {
	for _, source := range []string{"nflog", "packet"} {
		t.Run(source, func(t *testing.T) {
			s := newSite(t, "hping3", "nmap")
			s.start(strings.Replace(strictDoors, "SOURCE", source, 1))
			rows := []struct {
				steps string // as in TestDifferential; n: is a scan by nmap
				opens string
			}{
				{"7000 9000 udp/8000", "lax strict"},
				{"7000 4444 9000 udp/8000", "lax"},                               // a closed port of no door
				{"7000 udp/4444 9000 udp/8000", "lax"},                           // over UDP
				{"7000 9000 7100 udp/8000", "lax"},                               // another door's first step
				{"7000 9000 7110 udp/8000", ""},                                  // a door's port that nobody expects now
				{"7000 22 9000 udp/8000", "lax strict"},                          // a service's port, which is closed to it
				{"7000 h:-A:4444 9000 udp/8000", "lax strict"},                   // not a packet that `flags` is for
				{"d:7000 d:9000 udp/8000", "lax strict"},                         // packets that come twice
				{"7000 4444 7000 9000 udp/8000", "lax strict"},                   // from the beginning
				{"4444 7000 9000 udp/8000", "lax strict"},                        // before the first step
				{"7000 9000 4444 udp/8000 7000 9000 udp/8000", "lax lax strict"}, // once more
				{"n:7100-7120", "rising"},                                        // a scan in the order of the ports
			}
			for i := range rows {
				s.alice.Addr("eth0", fmt.Sprintf("192.0.2.%d/24", 100+i))
			}
			for i, row := range rows {
				from := fmt.Sprintf("192.0.2.%d", 100+i)
				for _, step := range strings.Fields(row.steps) {
					if ports, ok := strings.CutPrefix(step, "n:"); ok {
						s.alice.Run("nmap", "-sS", "-Pn", "-n", "-r", "--max-parallelism", "1", "--max-retries", "0", "-S", from, "-e", "eth0", "-p", ports, host4)
					} else {
						s.step(from, step)
					}
				}
				s.send(from, host4, "1111")
			}
			// IPv6 too.
			s.send("2001:db8::2", host6, "7000", "9000", "4444", "udp/8000", "1111")
			s.awaitLog(`"door":"end"`, len(rows)+1)
			opened := make(map[string]string)
			for line := range strings.Lines(s.caddy.Log.String()) {
				var entry struct{ Msg, Door, Source string }
				if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "sequence complete" && entry.Door != "end" {
					opened[entry.Source] = strings.TrimSpace(opened[entry.Source] + " " + entry.Door)
				}
			}
			for i, row := range rows {
				if got := opened[fmt.Sprintf("192.0.2.%d", 100+i)]; got != row.opens {
					t.Errorf("%s opens %q, want %q", row.steps, got, row.opens)
				}
			}
			if got := opened["2001:db8::2"]; got != "lax" {
				t.Errorf("over IPv6, with a stray packet: %q", got)
			}
		})
	}
}
