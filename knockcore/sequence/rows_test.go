// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import "testing"

// row is a row of the tables of port-sequences.md: packets, what the original
// makes of them, and what we do. Where ours differs, why says so.
type row struct {
	name    string
	doors   []string
	packets string
	theirs  string // openings of the original
	want    string // ours; "=" for the same
	why     string
}

const (
	abc   = "A=7000,8000,9000"
	other = "B=12345,23456"
)

// knockdRows are sections 4 and 4.1 to 4.4.
var knockdRows = []row{
	{name: "in order, back to back", packets: "7000 -10ms 8000 -10ms 9000", theirs: "A", want: "="},
	{name: "in order, any spacing inside the timeout", packets: "7000 +12s 8000 +12s 9000", theirs: "A", want: "="},
	{name: "wrong order", packets: "7000 9000 8000", want: "="},
	{name: "wrong order goes on being wrong", packets: "7000 9000 8000 9000", want: "="},
	{name: "wrong order, then right", packets: "7000 9000 8000 7000 8000 9000", theirs: "A", want: "="},
	{name: "ports of no door in between", packets: "7000 7500 8000 7501 9000", theirs: "A", want: "="},
	{
		name: "a later port of another door in between", doors: []string{abc, other},
		packets: "7000 23456 8000 9000", want: "=",
	},
	{
		name: "the first port of another door in between", doors: []string{abc, other},
		packets: "7000 12345 8000 9000", want: "A", why: "it begins there: another user behind the address",
	},
	{
		name: "the first port of another door before", doors: []string{abc, other},
		packets: "12345 7000 8000 9000", want: "A", why: "11.7: no packet is swallowed",
	},
	{name: "first step twice", packets: "7000 7000 8000 9000", want: "A", why: "11.6"},
	{name: "first SYN retransmitted", packets: "7000 +1s 7000' 8000 9000", want: "A", why: "11.6"},
	{name: "first step three times", packets: "7000 7000 7000 8000 9000", theirs: "A", want: "="},
	{name: "second step twice", packets: "7000 8000 8000 9000", want: "A", why: "11.6"},
	{
		name: "every frame delivered twice", packets: "7000 7000' 8000 8000' 9000 9000'",
		want: "A", why: "11.6",
	},
	{name: "every datagram delivered twice", doors: []string{"A=7000:udp,8000:udp,9000:udp"}, packets: "u7000 u7000' u8000 u8000' u9000 u9000'", want: "A", why: "11.6"},
	{name: "last step three times", packets: "7000 8000 9000 9000 9000", theirs: "A", want: "="},
	{
		name: "the user starts over", packets: "7000 8000 7000 8000 9000",
		want: "A", why: "11.7: the third 7000 is a first step",
	},
	{name: "starts over, then a full knock", packets: "7000 8000 7000 8000 9000 7000 8000 9000", theirs: "A", want: "A A", why: "as above"},
	{name: "full knock twice with fixed numbers", packets: "7000#5 8000#5 9000#5 7000#5 8000#5 9000#5", theirs: "A A", want: "="},
	{name: "wrong, then right, with fixed numbers", packets: "7000#5 9000#5 8000#5 7000#5 8000#5 9000#5", theirs: "A", want: "="},
	{name: "starts over with fixed numbers", packets: "7000#5 8000#5 7000#5 8000#5 9000#5", want: "A", why: "11.7"},
	{name: "one-port door, by datagrams of one socket", doors: []string{"A=7000:udp"}, packets: "u7000#5 u7000#5", theirs: "A A", want: "="},
	{name: "full knock twice", packets: "7000 8000 9000 7000 8000 9000", theirs: "A A", want: "="},
	{
		name: "open and close, open with a stray 9000 and open again", doors: []string{"open=7000,8000,9000", "close=9000,8000,7000"},
		packets: "7000 8000 9000 9000 7000 8000 9000", theirs: "open", want: "open open", why: "11.7",
	},
	{
		name: "open three times does not close", doors: []string{"open=7000,8000,9000", "close=9000,8000,7000"},
		packets: "7000 8000 9000 7000 8000 9000 7000 8000 9000", theirs: "open open open", want: "=",
	},
	{
		name: "open, then close", doors: []string{"open=7000,8000,9000", "close=9000,8000,7000"},
		packets: "7000 8000 9000 +30s 9000 8000 7000", theirs: "open close", want: "=",
	},
	{
		name: "one port three times", doors: []string{"A=7000,7000,7000"},
		packets: "7000 7000 7000", theirs: "A", want: "=",
	},
	{
		name: "one port three times, four packets", doors: []string{"A=7000,7000,7000"},
		packets: "7000 7000 7000 7000", theirs: "A", want: "=",
	},
	{
		name: "one port three times, six packets", doors: []string{"A=7000,7000,7000"},
		packets: "7000 7000 7000 7000 7000 7000", theirs: "A A", want: "=",
	},
	{
		name: "one port three times, two packets and a retransmission", doors: []string{"A=7000,7000,7000"},
		packets: "7000 7000 7000'", theirs: "A", want: "", why: "11.6: told apart by source port and sequence number",
	},
	{
		name: "one port three times, by datagrams of one socket", doors: []string{"A=7000:udp,7000:udp,7000:udp"},
		packets: "u7000#5 u7000#5 u7000#5", theirs: "A", want: "=",
	},
	{
		name: "one port three times, crafted without sequence numbers", doors: []string{"A=7000,7000,7000"},
		packets: "7000#0 7000#0 7000#0", theirs: "A", want: "=",
	},
	{name: "one-port door", doors: []string{"A=7000"}, packets: "7000 7000 7000", theirs: "A A A", want: "="},
	{
		name: "one-port door, retransmission", doors: []string{"A=7000"}, packets: "7000 +1s 7000'",
		theirs: "A A", want: "A", why: "11.6",
	},
	{
		name: "two users behind one address at the same time", packets: "7000 7000 8000 8000 9000 9000",
		want: "A", why: "both knocks are whole; the address is opened once",
	},
	{
		name: "two users behind one address, overlapping", packets: "7000 8000 7000 9000 8000 9000",
		want: "A A", why: "each has its own packets",
	},
	{
		name: "one user finishes while another is half way", packets: "7000 7000 8000 9000 8000 9000",
		want: "A", why: "the rest of the other knock spoils nothing",
	},
	{
		name: "two users behind one address at two doors", doors: []string{abc, other},
		packets: "7000 12345 8000 23456 9000", want: "B A", why: "11.8",
	},
	{name: "halves from two addresses", packets: "7000 8000 y:9000", want: "="},
	{name: "halves over IPv4 and IPv6", packets: "7000 8000 x6:9000", want: "="},
	{name: "over IPv6", packets: "x6:7000 x6:8000 x6:9000", theirs: "x6:A", want: "="},
	{name: "to several addresses of the host", packets: "7000 >2:8000 >3:9000", theirs: "A", want: "="},
	{
		name: "a target takes only what goes there", doors: []string{abc + ";to 203.0.113.2"},
		packets: "7000 8000 9000 >2:7000 >2:8000 9000 >2:9000", theirs: "A", want: "=",
	},
	{
		name: "mixed protocols", doors: []string{"A=7000,8000:udp,9000"},
		packets: "7000 8000 u8000 u9000 9000", theirs: "A", want: "=",
	},

	{
		name: "4.1 a shared beginning, first", doors: []string{abc, "B=7000,8000,9500"},
		packets: "7000 8000 9000", theirs: "A", want: "=",
	},
	{
		name: "4.1 a shared beginning, second", doors: []string{abc, "B=7000,8000,9500"},
		packets: "7000 8000 9500", theirs: "B", want: "=",
	},
	{
		name: "4.1 identical sequences", doors: []string{abc, "B=7000,8000,9000"},
		packets: "7000 8000 9000", theirs: "A B", want: "=",
	},
	{
		name: "4.1 one a prefix of the other", doors: []string{"A=7000,8000", "B=7000,8000,9000"},
		packets: "7000 8000 9000", theirs: "A", want: "A B", why: "11.8: all that match fire",
	},
	{
		name: "4.1 the longer one first", doors: []string{"B=7000,8000,9000", "A=7000,8000"},
		packets: "7000 8000 9000", theirs: "A B", want: "=",
	},
	{
		name: "4.1 overlap in the middle", doors: []string{"A=7000,8000", "B=8000,9000"},
		packets: "7000 8000 9000", theirs: "A", want: "A B", why: "11.7: a door may be begun while another runs",
	},

	{name: "4.2 X starts, Y starts, X completes, Y goes on", packets: "7000 y:7000 8000 9000 y:8000 y:9000", theirs: "A", want: "A y:A", why: "11.8"},
	{name: "4.2 X starts, Y starts, X fails, Y goes on", packets: "7000 y:7000 9000 y:8000 y:9000", want: "y:A", why: "11.8"},
	{
		name: "4.2 X starts, Y starts, X expires, Y goes on", packets: "7000 +20s y:7000 +6s y:8000 y:9000",
		want: "y:A", why: "11.8",
	},
	{name: "4.2 X starts, Y starts, Y completes, X goes on", packets: "7000 y:7000 y:8000 y:9000 8000 9000", theirs: "y:A A", want: "="},

	{
		name: "4.3 with syn, other flags are not seen", packets: "7000 8000/ack 9000/fin 9000/rst 8000 9000",
		theirs: "A", want: "=",
	},
	{name: "4.3 plain syn takes SYN+ACK", packets: "7000/syn,ack 8000 9000/syn,ack", theirs: "A", want: "="},
	{
		name: "4.3 UDP to the same number, in no door", packets: "7000 u9000 8000 9000",
		theirs: "A", want: "=",
	},
	{
		name: "4.3 UDP to the same number, in another door", doors: []string{abc, "B=1000,9000:udp"},
		packets: "7000 u9000 8000 9000", want: "=",
	},
	{
		name: "4.3 without flags NULL, FIN and XMAS count", doors: []string{abc + ";any"},
		packets: "7000/none 8000/fin 9000/fin,psh,urg", theirs: "A", want: "=",
	},
	{
		name: "4.3 without flags, at open ports: handshake and FIN", doors: []string{abc + ";any"},
		packets: "7000 7000/ack 7000/fin,ack 8000 8000/ack 8000/fin,ack 9000 9000/ack 9000/fin,ack",
		want:    "A", why: "11.6: hits on a step that is reached are repeats",
	},
	{
		name: "4.3 two doors, one without flags: the other does not see the packet", doors: []string{abc, "B=1000,9000;any"},
		packets: "7000 9000/ack 8000 9000", theirs: "A", want: "=",
	},

	{
		name: "4.4 nc on filtered ports: SYNs retransmitted after 1 s", packets: "7000 +1s 7000' +500ms 8000 +1s 8000' +500ms 9000 +1s 9000'",
		want: "A", why: "11.6",
	},
	{name: "4.4 nc with 0.8 s a port", packets: "7000 +800ms 8000 +800ms 9000", theirs: "A", want: "="},
	{
		name: "4.4 nmap -sS with retries: new SYNs from the same port", packets: "7000#5 +1s 7000#6 8000#5 +1s 8000#6 9000#5 +1s 9000#6",
		want: "A", why: "11.6",
	},
	{
		name: "4.4 three connections at once, all retransmitting", packets: "7000 8000 9000 +1s 7000' 8000' 9000'",
		theirs: "A A", want: "=", why: "the copies are a whole knock",
	},
	{name: "4.4 a late copy of an earlier step", packets: "7000 8000 +1s 7000' 9000", want: "A", why: "11.6"},
	{
		name: "4.4 a late copy of the last step in the next knock", packets: "7000 8000 9000 7000 9000' 8000 9000",
		theirs: "A", want: "A A", why: "11.6",
	},

	{
		name: "5 the timeout is to the millisecond", doors: []string{abc + ";within 1s"},
		packets: "7000 +100ms 8000 +880ms 9000", want: "A", why: "11.9: 1 s means 1 s at every point of the second",
	},
	{
		name: "5 too late by a millisecond", doors: []string{abc + ";within 1s"},
		packets: "7000 +100ms 8000 +881ms 9000", want: "=",
	},
	{name: "5 the default is 25 s", packets: "7000 +12s 8000 +12980ms 9000 +1s 7000 +12s 8000 +12981ms 9000", theirs: "A", want: "="},
}

// knockrsRows are section 9.
var knockrsRows = []row{
	{name: "first step twice", packets: "7000 7000 8000 9000", theirs: "A", want: "="},
	{name: "starts over", packets: "7000 8000 7000 8000 9000", theirs: "A", want: "="},
	{name: "another rule's port, then the sequence", doors: []string{abc, other}, packets: "12345 7000 8000 9000", theirs: "A", want: "="},
	{name: "another rule's later port, then the sequence", doors: []string{abc, other}, packets: "23456 7000 8000 9000", theirs: "A", want: "="},
	{name: "second step twice", packets: "7000 8000 8000 9000", want: "A", why: "11.6"},
	{name: "another rule's port in the middle", doors: []string{abc, other}, packets: "7000 8000 23456 9000", want: "="},
	{name: "unknown ports in between", packets: "7000 7001 7002 8000 8001 9000", theirs: "A", want: "="},
	{name: "two sources interleaved", packets: "7000 y:7000 8000 y:8000 9000 y:9000", theirs: "A y:A", want: "="},
	{
		name: "pauses of 0.7 s with an idle time of 1 s", doors: []string{abc + ";idle 1s"},
		packets: "7000 +690ms 8000 +690ms 9000", theirs: "A", want: "=",
	},
	{
		name: "a pause of more than the idle time", doors: []string{abc + ";idle 1s"},
		packets: "7000 +690ms 8000 +991ms 9000", want: "=",
	},
	{
		name: "idle alone does not limit the whole", doors: []string{"A=1,2,3,4,5,6;idle 20s"},
		packets: "1 +19s 2 +19s 3 +19s 4 +19s 5 +19s 6", theirs: "A", want: "=",
	},
	{
		name: "idle and within both limit", doors: []string{abc + ";idle 1s;within 1500ms"},
		packets: "7000 +800ms 8000 +800ms 9000", want: "=",
	},
	{
		name: "suffixes of each other", doors: []string{abc, "B=8000,9000"},
		packets: "7000 8000 9000", theirs: "A or B, at random", want: "A B", why: "all that match fire",
	},
	{
		name: "identical sequences", doors: []string{abc, "B=7000,8000,9000"},
		packets: "7000 8000 9000", theirs: "A or B, at random", want: "A B", why: "all that match fire",
	},
	{name: "SYN with FIN, PSH and RST counts", packets: "7000/syn,fin 8000/syn,psh 9000/syn,rst", theirs: "A", want: "="},
}

// strictRows are section 11.7's strict mode.
var strictRows = []row{
	{name: "in order", packets: "7000 8000 9000", want: "A"},
	{name: "a linear scan", packets: "6999 7000 7001 8000 8001 9000", want: ""},
	{name: "a closed UDP port", packets: "7000 u1 8000 9000", want: ""},
	{name: "a packet that is no SYN", packets: "7000 443/ack 8000 9000", want: "A"},
	{name: "retransmissions", packets: "7000 7000' 8000 7000' 8000' 9000", want: "A"},
	{name: "the same port from elsewhere", packets: "7000 8000 8000 9000", want: ""},
	{name: "spoiled by its own first step, which begins anew", packets: "7000 8000 7000 8000 9000", want: "A"},
	{name: "wrong, then right", packets: "7000 9000 8000 7000 8000 9000", want: "A"},
	{name: "another door's first step", doors: []string{abc + ";strict", other}, packets: "7000 12345 8000 9000", want: ""},
	{name: "a door that is not strict beside it", doors: []string{abc + ";strict", "B=7000,8000,9000"}, packets: "7000 1 8000 9000", want: "B"},
	{name: "somebody else's packets", packets: "7000 y:1 8000 y:8000 9000", want: "A"},
	{name: "repeated datagrams of one socket", doors: []string{"A=7000:udp,7000:udp,8000:udp;strict"}, packets: "u7000#5 u7000#5 u8000#5", want: "A"},
	{name: "a knock twice with fixed numbers", packets: "7000#5 8000#5 9000#5 7000#5 8000#5 9000#5", want: "A A"},
	{name: "a knock twice by datagrams of one socket", doors: []string{"A=7000:udp,8000:udp;strict"}, packets: "u7000#5 u8000#5 u7000#5 u8000#5", want: "A A"},
	{name: "one UDP port", doors: []string{"A=7000:udp;strict"}, packets: "u7000#5 u7000#5", want: "A A"},
	{name: "one port", doors: []string{"A=7000;strict"}, packets: "7000 7000' 7000", want: "A A"},
	{name: "repeated port", doors: []string{"A=7000,7000,7000;strict"}, packets: "7000 7000' 7000 7000 7000 7000 7000", want: "A A"},
	{name: "too late", packets: "7000 8000 +25s 9000", want: ""},
	{name: "last step repeated, then again", packets: "7000 8000 9000 9000 7000 8000 9000", want: "A A"},
}

func TestRows(t *testing.T) {
	run := func(t *testing.T, rows []row, standard string) {
		names := make(map[string]bool)
		for _, r := range rows {
			if names[r.name] {
				t.Errorf("two rows %q", r.name)
			}
			names[r.name] = true
			t.Run(r.name, func(t *testing.T) {
				if r.doors == nil {
					r.doors = []string{standard}
				}
				want := r.want
				if want == "=" {
					want = r.theirs
				} else if r.theirs != "" && r.why == "" {
					t.Error("a difference without a reason")
				}
				got := newKnocks(t).play(testMatcher(t, r.doors...), r.packets)
				if got != want {
					t.Errorf("%s: opened %q, want %q", r.packets, got, want)
				}
			})
		}
	}
	t.Run("knockd", func(t *testing.T) { run(t, knockdRows, abc) })
	t.Run("knock-rs", func(t *testing.T) { run(t, knockrsRows, abc) })
	t.Run("strict", func(t *testing.T) { run(t, strictRows, abc+";strict") })
}
