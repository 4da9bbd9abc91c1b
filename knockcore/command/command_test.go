// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

var ssh = &knockcore.Service{Name: "ssh", Ports: []knockcore.PortRange{
	{Protocol: knockcore.TCP, Low: 22, High: 22}, {Protocol: knockcore.UDP, Low: 6000, High: 6010},
}}

func TestExpand(t *testing.T) {
	v := Values{Action: ActionOpen, Prefix: netip.MustParsePrefix("192.0.2.7/32"), Client: "a;b $(id)", Service: "ssh"}
	v6 := v
	v6.Prefix = netip.MustParsePrefix("2001:db8::/64")
	for _, row := range []struct {
		v    Values
		args string
		want string
	}{
		{v, "p {knock.address} {knock.prefix} {knock.family} {knock.inet}", "p|192.0.2.7|192.0.2.7/32|ipv4|inet"},
		{v6, "p {knock.address} {knock.prefix} {knock.family} {knock.inet}", "p|2001:db8::/64|2001:db8::/64|ipv6|inet6"},
		{v, "p -s{knock.address}/32,x { {knock.action} } {} {1} { {", "p|-s192.0.2.7/32,x|{|open|}|{}|{1}|{|{"},
		{v, "p {knock.protocol}/{knock.port}", "p|tcp/22 p|udp/6000-6010"},
		{v, "p {knock.port_first}:{knock.port_last}", "p|22:22 p|6000:6010"},
	} {
		tm, err := Parse(strings.Fields(row.args), true)
		if err != nil {
			t.Fatalf("%s: %v", row.args, err)
		}
		all, err := tm.Expand(row.v, ssh.Ports)
		var got []string
		for _, argv := range all {
			got = append(got, strings.Join(argv, "|"))
		}
		if err != nil || strings.Join(got, " ") != row.want {
			t.Errorf("%s: %v, %v", row.args, got, err)
		}
	}
	// A name is an argument of its own, whatever it holds.
	tm, err := Parse([]string{"p", "{knock.client}", "{knock.service}"}, true)
	if err != nil {
		t.Fatal(err)
	}
	all, err := tm.Expand(v, nil)
	if err != nil || !slices.Equal(all[0], []string{"p", "a;b $(id)", "ssh"}) {
		t.Errorf("%q, %v", all, err)
	}
	v.Client = "--help"
	if _, err := tm.Expand(v, nil); err == nil {
		t.Error("a name became an option")
	}
}

func TestParseErrors(t *testing.T) {
	for _, row := range []struct {
		args   []string
		window bool
		want   string
	}{
		{nil, true, "needs a program"},
		{[]string{""}, true, "needs a program"},
		{[]string{"{knock.address}"}, true, "can't be a placeholder"},
		{[]string{"p", "{knock.adress}"}, true, "unknown placeholder"},
		{[]string{"p", "{env.SECRET}"}, true, "unknown placeholder"},
		{[]string{"p", "x{knock.client}"}, true, "an argument of its own"},
		{[]string{"p", "{knock.address}"}, false, "nobody has knocked"},
		{[]string{"p", "a\x00b"}, true, "zero byte"},
		{make([]string, 2000), true, "needs a program"},
		{append([]string{"p"}, make([]string, 2000)...), true, "at most"},
	} {
		if _, err := Parse(row.args, row.window); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%.40q: %v", row.args, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("{knock.address}", "x{knock.port}y{")
	f.Add("{knock.client}", "{{knock.prefix}}")
	f.Fuzz(func(t *testing.T, a, b string) {
		tm, err := Parse([]string{"p", a, b}, true)
		if err != nil {
			return
		}
		all, err := tm.Expand(Values{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Client: "alice", Service: "ssh"}, ssh.Ports[:1])
		if err != nil || len(all) != 1 || len(all[0]) != 3 {
			t.Fatalf("%q: %v", all, err)
		}
	})
}

func TestRunner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are Unix's")
	}
	t.Setenv("KNOCK_TEST_SECRET", "hunter2hunter2")
	ours, err := os.Open("command_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	r, hasty := NewRunner(time.Minute, 2), NewRunner(2*time.Second, 2)
	left := filepath.Join(t.TempDir(), "left")
	for _, row := range []struct {
		name, script, output, err string
	}{
		{"fine", "echo out; echo err >&2", "out\nerr", ""},
		{"fails", "echo no; exit 3", "no", "exit status 3"},
		{"clean environment", "env | grep -v ^_= | grep -v ^PWD= | sort; pwd", "LANG=C.UTF-8\nPATH=" + defaultPath + "\n/", ""},
		{"no input", "cat; echo end", "end", ""},
		{"no files", "ls -l /proc/self/fd | grep -c command_test.go; true", "0", ""},
		{"hangs", "echo before; sleep 1000", "before", "killed after 2s"},
		{"forks and hangs", "(sleep 1000 & sleep 1000 & wait) & wait", "", "killed after"},
		{"leaves one behind", "(sleep 1; touch " + left + ") & echo started", "started", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			runner := r
			if strings.Contains(row.err, "killed") {
				runner = hasty
			}
			res := runner.Run(t.Context(), []string{"/bin/sh", "-c", row.script})
			if res.Output != row.output || (res.Err == nil) != (row.err == "") || res.Err != nil && !strings.Contains(res.Err.Error(), row.err) {
				t.Errorf("%q, %v", res.Output, res.Err)
			}
		})
	}
	if res := r.Run(t.Context(), []string{"/bin/sh", "-c", "yes | head -c 100000"}); len(res.Output) > MaxOutput || !res.Cut || res.Err != nil {
		t.Errorf("%d bytes kept, %v", len(res.Output), res.Err)
	}
	for _, program := range []string{"no-such-program", "./sh", "/etc/passwd", "/", "/no/such"} {
		if res := r.Run(t.Context(), []string{program}); res.Err == nil {
			t.Errorf("%s ran", program)
		}
	}
	time.Sleep(time.Second)
	if _, err := os.Stat(left); err == nil {
		t.Error("what a command left behind lived on")
	}
}

// TestRunnerBounds runs more commands than there are places.
func TestRunnerBounds(t *testing.T) {
	r := NewRunner(time.Minute, 3)
	dir := t.TempDir()
	script := `echo $$ > ` + dir + `/$$; ls ` + dir + ` | wc -l; sleep 0.02; rm ` + dir + `/$$`
	var wg sync.WaitGroup
	var mu sync.Mutex
	most := 0
	for range 30 {
		wg.Go(func() {
			res := r.Run(context.Background(), []string{"/bin/sh", "-c", script})
			n := 0
			_, _ = fmt.Sscan(res.Output, &n)
			mu.Lock()
			defer mu.Unlock()
			most = max(most, n)
		})
	}
	wg.Wait()
	if most < 1 || most > 3 {
		t.Errorf("%d at a time", most)
	}
	hang := NewRunner(5*time.Second, 1)
	hang.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if res := hang.Run(ctx, []string{"/bin/true"}); !errors.Is(res.Err, context.Canceled) {
		t.Errorf("waited: %v", res.Err)
	}
}

func BenchmarkRun(b *testing.B) {
	r := NewRunner(0, 0)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if res := r.Run(b.Context(), []string{"/bin/true"}); res.Err != nil {
				b.Fatal(res.Err)
			}
		}
	})
}
