// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doors

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/importer"
)

// The doors of both daemons. Each row of the test has a source of its own.
const knockdConf = `[options]
	LogFile = LOG
	Interface = eth0
[end]
	sequence = 1111
	tcpflags = syn
[abc]
	sequence = 7000,8000,9000
	tcpflags = syn
[other]
	sequence = 12345,23456
	tcpflags = syn
[short]
	sequence = 7100,8100
	tcpflags = syn
[long]
	sequence = 7100,8100,9100
	tcpflags = syn
[same]
	sequence = 7200,7200,7200
	tcpflags = syn
[mixed]
	sequence = 7300:udp,8300,9300:UDP
	tcpflags = syn
[anyflags]
	sequence = 7400,8400,9400
`

// differences are the rows: what is sent, and how often each door opens. Where
// knockd differs, it has a defect that port-sequences.md describes.
var differences = []struct {
	steps        string // h:FLAGS:PORT is sent by hping3, d:PORT twice the same packet
	knockd, ours string
	why          string
}{
	{steps: "7000 8000 9000", knockd: "abc"},
	{steps: "7000 9000 8000"},
	{steps: "7000 9000 8000 7000 8000 9000", knockd: "abc"},
	{steps: "7000 7500 8000 7501 9000", knockd: "abc"},
	{steps: "7000 udp/8000 8000 9000", knockd: "abc"},
	{steps: "7000 7000 7000 8000 9000", knockd: "abc"},
	{steps: "7000 8000 9000 9000 9000", knockd: "abc"},
	{steps: "7000 8000 9000 7000 8000 9000", knockd: "abc abc"},
	{steps: "7200 7200 7200", knockd: "same"},
	{steps: "7200 7200 7200 7200", knockd: "same"},
	{steps: "1111 1111 1111", knockd: "end end end"},
	{steps: "udp/7300 8300 udp/9300", knockd: "mixed"},
	{steps: "7300 8300 9300"},
	{steps: "7000 h:-F:8000 8000 9000", knockd: "abc"},
	{steps: "7000 h:-SA:8000 9000", knockd: "abc"},
	{steps: "h:-F:7400 h:-FPU:8400 h:-A:9400", knockd: "anyflags"},
	{steps: "h:-F:7000 8000 9000"},

	{steps: "7000 7000 8000 9000", ours: "abc", why: "a repeated first step spoils"},
	{steps: "7000 8000 8000 9000", ours: "abc", why: "a repeated step spoils"},
	{steps: "d:7000 d:8000 d:9000", ours: "abc", why: "a packet that comes twice spoils"},
	{steps: "7000 8000 7000 8000 9000", ours: "abc", why: "who starts over is lost"},
	{steps: "7000 7000 8000 8000 9000 9000", ours: "abc", why: "two users behind one address lock each other out"},
	{steps: "7000 12345 8000 9000", ours: "abc", why: "a user of another door behind the same address spoils"},
	{steps: "12345 7000 8000 9000", ours: "abc", why: "another door's first port swallows the next packet"},
	{steps: "7100 8100 9100", knockd: "short", ours: "short long", why: "the door that opens first forgets the other one"},
}

var openSesame = regexp.MustCompile(`(?m)\] (\S+): (\S+): OPEN SESAME`)

// TestDifferential shows the same packets to Debian's knockd, with its own
// configuration, and to Caddy with the imported one.
func TestDifferential(t *testing.T) {
	s := newSite(t, "knockd", "hping3")
	log := filepath.Join(s.dir, "knockd.log")
	conf := filepath.Join(s.dir, "knockd.conf")
	text := strings.ReplaceAll(knockdConf, "LOG", log)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	imported, err := importer.Knockd([]byte(text), importer.Options{File: conf})
	if err != nil {
		t.Fatal(err)
	}
	s.start(strings.Replace(imported, "{\n\tknock", "{\n\tadmin localhost:2019\n\tknock", 1))
	for i := range differences {
		s.alice.Addr("eth0", fmt.Sprintf("192.0.2.%d/24", 100+i))
	}
	knockd := program.Start(t, s.host.Command(context.Background(), program.Need(t, "knockd"), "-c", conf))
	said := func(text string) int {
		b, _ := os.ReadFile(log)
		return strings.Count(string(b), text)
	}
	awaitKnockd := func(text string, n int) {
		t.Helper()
		knockd.Await(t, "knockd to say "+text, func() bool { return said(text) >= n })
	}
	awaitKnockd("starting up", 1)
	ends := 0 // how many packets were sent as the last of a row
	for i, row := range differences {
		// It forgets what is under way, so that the rows do not disturb each other.
		_ = knockd.Process.Signal(syscall.SIGHUP)
		awaitKnockd("re-reading config file", i+1)
		end := func() {
			t.Helper()
			// It may lose packets while it reads its configuration.
			before, sent := said("192.0.2.2: end: OPEN"), time.Time{}
			knockd.Await(t, "knockd to see the last packet", func() bool {
				if time.Since(sent) > time.Second {
					s.send("192.0.2.2", host4, "1111")
					sent = time.Now()
					ends++
				}
				return said("192.0.2.2: end: OPEN") > before
			})
		}
		end()
		source := fmt.Sprintf("192.0.2.%d", 100+i)
		for _, step := range strings.Fields(row.steps) {
			s.step(source, step)
		}
		end()
	}
	s.awaitLog(`"door":"end","source":"192.0.2.2"`, ends)
	theirs, ours := make(map[string]string), make(map[string]string)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range openSesame.FindAllStringSubmatch(string(b), -1) {
		theirs[m[1]] = strings.TrimSpace(theirs[m[1]] + " " + m[2])
	}
	for line := range strings.Lines(s.caddy.Log.String()) {
		var entry struct{ Msg, Door, Source string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "sequence complete" {
			ours[entry.Source] = strings.TrimSpace(ours[entry.Source] + " " + entry.Door)
		}
	}
	for i, row := range differences {
		source, want := fmt.Sprintf("192.0.2.%d", 100+i), row.ours
		if row.why == "" {
			want = row.knockd
		}
		if theirs[source] != row.knockd || ours[source] != want {
			t.Errorf("%s (%s): knockd opens %q, Caddy %q; expected %q and %q", row.steps, row.why, theirs[source], ours[source], row.knockd, want)
		}
	}
}

// step sends one step of a row.
func (s *site) step(source, step string) {
	s.Helper()
	hping := func(flags, port string, more ...string) {
		args := append([]string{"hping3", "-a", source, "-c", "1", "-i", "u1000", "-q", "-p", port}, more...)
		for _, f := range flags[1:] {
			args = append(args, "-"+string(f))
		}
		_, _ = s.alice.Try(append(args, host4)...) // it fails when nobody answers
	}
	switch kind, rest, _ := strings.Cut(step, ":"); kind {
	case "h":
		flags, port, _ := strings.Cut(rest, ":")
		hping(flags, port)
	case "d":
		for range 2 {
			hping("-S", rest, "-s", "40000", "-k", "-M", "1234567")
		}
	default:
		s.send(source, host4, step)
	}
}
