// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// unguarded is the configuration without its firewall.
func (g *gate) unguarded() string {
	before, _, _ := strings.Cut(g.text, "\t\t\tfirewall nftables\n")
	return before + "\t\t}\n\t}\n}\n"
}

// print prints the closed rule set.
func (g *gate) print(args ...string) string {
	g.Helper()
	cmd := g.command(append([]string{"knock", "firewall", "print"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		g.Fatalf("print: %v", err)
	}
	return string(out)
}

// TestPrint: what is printed from a Caddyfile, or its JSON, closes the services
// before Caddy starts, which then takes the table over.
func TestPrint(t *testing.T) {
	g := newHost(t, "")
	text := g.print("--config", g.file)
	if again := g.print(); again != text {
		t.Errorf("without --config:\n%s", again)
	}
	json, err := g.command("adapt", "--config", g.file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "caddy.json"), json, 0o600); err != nil {
		t.Fatal(err)
	}
	if again := g.print("--config", "caddy.json", "nftables"); again != text {
		t.Errorf("from JSON:\n%s", again)
	}
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	g.host.RunInput(text, "nft", "-f", "-")
	g.shut("before Caddy")
	g.start()
	g.shut("Caddy runs")
	g.grant("192.0.2.2", "10m")
	if got := g.alice.ProbeFor("tcp", "192.0.2.1:2222", netlab.Open); got != netlab.Open {
		t.Errorf("after the grant: %s", got)
	}
	g.host.RunInput(text, "nft", "-f", "-") // somebody starts the boot unit again
	g.lab.Eventually(20*time.Second, "the window to be back", func() bool {
		return g.alice.Probe("tcp", "192.0.2.1:2222") == netlab.Open
	})
	if got := g.stranger.Probe("tcp", "198.51.100.1:2222"); got != netlab.Filtered {
		t.Errorf("for a stranger: %s", got)
	}
}

// TestRemove: the rules that a killed Caddy leaves behind go, those of one that
// runs do not.
func TestRemove(t *testing.T) {
	g := newGate(t, "")
	remove := func(args ...string) (string, error) {
		out, err := g.command(append([]string{"knock", "firewall", "remove"}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := remove("--config", g.file); err == nil || !strings.Contains(out, "in use by another caddy-knock") {
		t.Errorf("while Caddy runs: %v %s", err, out)
	}
	g.shut("while Caddy runs")
	g.caddy.Kill()
	g.shut("Caddy was killed")
	if out, err := remove("--config", g.file); err != nil || !strings.Contains(out, "the services are open") {
		t.Errorf("after Caddy: %v %s", err, out)
	}
	if got := g.stranger.ProbeFor("tcp", "198.51.100.1:2222", netlab.Open); got != netlab.Open {
		t.Errorf("after removing: %s", got)
	}
	_ = os.Remove(g.file)
	if out, err := remove("nftables"); err != nil || !strings.Contains(out, "there are no rules") {
		t.Errorf("again, without a file: %v %s", err, out)
	}
	for args, want := range map[string]string{
		"":                     "name the configuration file with --config",
		"exotic":               "knock.firewalls.exotic",
		"none":                 "it has no rules of its own",
		"--config nowhere":     "no such file",
		"nftables nftables":    "accepts at most 1 arg",
		"--adapter toml alice": "cannot adapt config without config file",
	} {
		if out, err := remove(strings.Fields(args)...); err == nil || !strings.Contains(out, want) {
			t.Errorf("remove %s: %v %s", args, err, out)
		}
	}
}

// trial is `firewall test` that runs.
type trial struct {
	*program.Process
	in io.WriteCloser
}

func (g *gate) trial(length string) *trial {
	g.Helper()
	cmd := g.command("knock", "firewall", "test", "--for", length, "--config", g.file)
	in, err := cmd.StdinPipe()
	if err != nil {
		g.Fatal(err)
	}
	p := program.Start(g.T, cmd)
	p.Await(g.T, "the rules to stand", func() bool { return strings.Contains(p.Log.String(), "Closed but for those who knock: ssh") })
	return &trial{p, in}
}

func (g *gate) ended(p *trial, code int, says string) {
	g.Helper()
	select {
	case <-p.Ended:
	case <-time.After(30 * time.Second):
		g.Fatalf("the trial does not end: %s", p.Log.Tail(2000))
	}
	if got := p.ProcessState.ExitCode(); got != code || !strings.Contains(p.Log.String(), says) {
		g.Errorf("exit code %d, want %d and %q; it says:\n%s", got, code, says, p.Log.Tail(2000))
	}
}

func (g *gate) open(when string) {
	g.Helper()
	for _, to := range []string{"192.0.2.1:2222", "[2001:db8:1::1]:2222"} {
		if got := g.alice.ProbeFor("tcp", to, netlab.Open); got != netlab.Open {
			g.Errorf("%s: %s is %s", when, to, got)
		}
	}
}

// TestTrial: a configuration with a firewall stays only if it is confirmed,
// whatever happens to the terminal, and to Caddy.
func TestTrial(t *testing.T) {
	g := newHost(t, "")
	g.write(g.unguarded())
	g.start()
	g.open("without a firewall")
	g.write(g.text)

	p := g.trial("1s")
	g.ended(p, 1, "not confirmed: everything is as before")
	g.open("when the time is over")
	if rest := g.host.Run("nft", "list", "ruleset"); rest != "" {
		t.Errorf("left behind:\n%s", rest)
	}

	// What locks out the terminal: it hangs up. The trial goes on to its end.
	p = g.trial("8s")
	g.shut("while it is tried")
	id := g.grant("192.0.2.2", "10m")
	g.alice.Expect("tcp", "192.0.2.1:2222", netlab.Open)
	_ = p.in.Close()
	_ = p.Cmd.Process.Signal(syscall.SIGHUP)
	g.ended(p, 1, "not confirmed")
	g.open("after the terminal hung up")

	p = g.trial("10m")
	_ = p.Cmd.Process.Signal(syscall.SIGINT)
	g.ended(p, 1, "not confirmed")
	g.open("after an interrupt")

	p = g.trial("10m")
	_, _ = io.WriteString(p.in, "what?\nkeep\n")
	g.ended(p, 0, "Kept.")
	if got := g.alice.ProbeFor("tcp", "192.0.2.1:2222", netlab.Open); got != netlab.Open {
		t.Errorf("after the confirmation alice, who still holds a grant, meets %s", got)
	}
	if status, body := g.call(http.MethodDelete, "/knock/grants?id="+id, ""); status != http.StatusOK {
		t.Fatal(status, body)
	}
	g.shut("after the confirmation")

	// A trial of a change to what is there: going back closes and opens nothing.
	g.write(strings.Replace(g.text, "tcp/2222 udp/2222", "tcp/2222", 1))
	p = g.trial("10m")
	_ = p.Cmd.Process.Signal(syscall.SIGTERM)
	g.ended(p, 1, "not confirmed")
	g.shut("after the second trial")

	// Caddy dies meanwhile.
	if status, body := g.call(http.MethodPost, "/stop", ""); status != http.StatusOK {
		t.Fatal(status, body)
	}
	<-g.caddy.Ended
	g.host.Run("nft", "delete", "table", "inet", "caddy_knock")
	g.write(g.unguarded())
	g.start()
	g.write(g.text)
	p = g.trial("10m")
	g.caddy.Kill()
	_ = p.Cmd.Process.Signal(syscall.SIGINT)
	g.ended(p, 1, "going back failed")
	g.open("after Caddy died")
}

// TestTrialOfRules: without Caddy only the rules are tried.
func TestTrialOfRules(t *testing.T) {
	g := newHost(t, "")
	p := g.trial("10m")
	g.shut("while it is tried")
	_ = p.Cmd.Process.Signal(syscall.SIGINT)
	g.ended(p, 1, "only the rules are tried")
	g.open("after the trial")
	p = g.trial("10m")
	_, _ = io.WriteString(p.in, "keep\n")
	g.ended(p, 0, "Kept.")
	g.shut("after the confirmation")
	for file, want := range map[string]string{
		g.text: "rules stand already",
		strings.Replace(g.text, "\t\t\tfirewall nftables\n", "", 1): "nothing to try",
		strings.Replace(g.text, "admin "+g.admin, "admin off", 1):   "turns the admin API off",
	} {
		g.write(file)
		if out, err := g.command("knock", "firewall", "test").CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, want %q: %s", err, want, out)
		}
	}
	g.shut("in the end")
	g.write(g.text)
	g.host.Run("nft", "delete", "table", "inet", "caddy_knock")
	unprivileged := g.host.Command(t.Context(), "setpriv", "--bounding-set=-net_admin", "--inh-caps=-all",
		program.Caddy(t), "knock", "firewall", "test", "--config", g.file)
	if out, err := unprivileged.CombinedOutput(); err == nil || !strings.Contains(string(out), "no permission to change nftables") {
		t.Errorf("without the right: %v %s", err, out)
	}
	g.open("without the right")
	g.write(strings.Replace(g.text, "firewall nftables {", "firewall nftables {\n set filter open", 1))
	g.host.RunInput("table inet filter { set open { type ipv4_addr; flags timeout; }; }", "nft", "-f", "-")
	p = g.trial("1s")
	g.ended(p, 1, "going back does not open what commands or rules of yours close")
}
