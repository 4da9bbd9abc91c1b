// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package passive

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// states are what a firewall that is not ours makes of a port; the number ends the
// ports' own.
var states = map[string]string{"dropped": "10", "rejected": "11", "closed": "12"}

const rules = `table inet theirs {
	chain input {
		type filter hook input priority 0; policy accept;
		tcp dport 2210 drop
		udp dport 62210 drop
		tcp dport 2211 reject with tcp reset
		udp dport 62211 reject
	}
}
`

// methodsConfig has a client for each way to knock, because one SYN knock of a
// client counts in each slot.
func methodsConfig(source string, clients []string) string {
	var b strings.Builder
	b.WriteString("{\n\tadmin localhost:2019\n\tknock {\n\t\tstore memory\n")
	for _, id := range clients {
		credential := "secret \"" + secret + " " + id + "\""
		if strings.HasPrefix(id, "pyknock") {
			credential = "pyknock \"" + secret + " " + id + "\""
		}
		if strings.HasPrefix(id, "fwknop") {
			credential = "fwknop base64:" + encode(id+" encryption") + " base64:" + encode(id+" hmac key")
		}
		service := id[strings.LastIndex(id, "-")+1:]
		fmt.Fprintf(&b, "\t\tclient %s {\n\t\t\t%s\n\t\t\tservices %s\n\t\t}\n", id, credential, service)
	}
	for state, number := range states {
		fmt.Fprintf(&b, "\t\tservice %s tcp/22%s {\n\t\t\topen_for 10m\n\t\t}\n", state, number)
	}
	fmt.Fprintf(&b, "\t\tsource %s {\n\t\t\tports udp/62210-62212\n\t\t}\n\t}\n}\n", source)
	return b.String()
}

// encode makes a key of fwknop's out of a text.
func encode(s string) string {
	key := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(key[:])
}

func TestMethods(t *testing.T) {
	for _, source := range []string{"nflog", "packet"} {
		t.Run(source, func(t *testing.T) { testMethods(t, source) })
	}
}

func testMethods(t *testing.T, source string) {
	s := newSite(t, "hping3", "nmap")
	s.host.RunInput(rules, "nft", "-f", "-")
	var clients []string
	for _, method := range []string{"udp-passive", "udp-passive-seq", "tcp-syn", "tcp-syn-seq", "pyknock", "fwknop"} {
		for _, family := range []string{"4", "6"} {
			for state := range states {
				if (method == "pyknock" || method == "fwknop") && state == "closed" {
					continue // the rest of the way is that of udp-passive
				}
				clients = append(clients, method+"-v"+family+"-"+state)
			}
		}
	}
	slices.Sort(clients)
	s.start(methodsConfig(source, clients))

	strange := func() {
		for _, to := range []string{"198.51.100.1", "2001:db8:2::1"} {
			_, _ = s.stranger.Try(append([]string{"nmap", "-n", "-Pn", "-sS", "-T5", "--max-retries", "0", "-p", "2210-2212,62210"}, nmapFamily(to)...)...)
		}
		_, _ = s.stranger.Try("hping3", "-q", "-S", "--tcp-timestamp", "-p", "2210", "-c", "50", "-i", "u500", "198.51.100.1")
		_, _ = s.stranger.Try("hping3", "-q", "-2", "-d", "200", "-p", "62210", "-c", "50", "-i", "u500", "198.51.100.1")
	}
	lines := s.answers(func() {
		strange()
		for _, id := range clients {
			s.send(id)
		}
		s.caddy.Await(t, "all grants", func() bool { return len(s.grants()) >= len(clients) })
	})
	strange()
	got := s.grants()
	var want []string
	for _, id := range clients {
		family := "4"
		if strings.Contains(id, "-v6-") {
			family = "6"
		}
		want = append(want, fmt.Sprintf("%s %s %s", id, id[strings.LastIndex(id, "-")+1:], alice[family]))
	}
	for i := range got {
		got[i] = strings.TrimSuffix(strings.TrimSuffix(got[i], "/32"), "/128")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("grants\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// Nothing about the dropped ports, and about the others what every stranger gets.
	answer := regexp.MustCompile(`(\.221[12] > .*Flags \[R\.?\]|udp port 6221[12] unreachable|unreachable port, .*6221[12]|6221[12])`)
	for _, line := range lines {
		if !answer.MatchString(line) {
			t.Errorf("the host said %s", line)
		}
	}
	if len(lines) == 0 {
		t.Error("tcpdump saw nothing at all, not even what rejects")
	}
}

func nmapFamily(to string) []string {
	if strings.Contains(to, ":") {
		return []string{"-6", to}
	}
	return []string{to}
}

// send knocks as the client, with the real program.
func (s *site) send(id string) {
	s.Helper()
	method, rest, _ := strings.Cut(id, "-v")
	family, state, _ := strings.Cut(rest, "-")
	number := states[state]
	args := []string{program.Client(s.T), "send", "--method", method, "--delay", "5ms", "--knock-port", "622" + number}
	if method == "tcp-syn" || method == "tcp-syn-seq" {
		args = args[:len(args)-2]
	}
	to := net.JoinHostPort(host[family], "22"+number)
	switch method {
	case "pyknock":
		args, to = append(args, "--secret", secret+" "+id), host[family]
	case "fwknop":
		args = append(args, "--secret", "base64:"+encode(id+" encryption"), "--hmac-secret", "base64:"+encode(id+" hmac key"))
	default:
		args, to = append(args, "--secret", secret+" "+id), id+"@"+to
	}
	s.alice.Run(append(args, to)...)
}
