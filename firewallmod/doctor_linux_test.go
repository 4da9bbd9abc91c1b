// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/doctor"
)

// examine runs the doctor on the host, over a configuration file.
func (g *gate) examine(file string) *doctor.Report {
	g.Helper()
	cmd := g.command("knock", "doctor", "--config", file, "--json")
	out, err := cmd.Output()
	var failed *exec.ExitError
	if err != nil && (!errors.As(err, &failed) || failed.ExitCode() != 1) {
		g.Fatalf("%v: %s", err, out)
	}
	report := new(doctor.Report)
	if jsonErr := json.Unmarshal(out, report); jsonErr != nil {
		g.Fatalf("%v in %s; %v", jsonErr, out, failed)
	}
	if report.OK != (err == nil) {
		g.Errorf("ok is %v, and the exit code says %v", report.OK, err)
	}
	return report
}

// examineUntil examines again if something is not seen: to prove that a port is open
// the doctor takes less than a second, which a busy machine may not have.
func (g *gate) examineUntil(file string, seen func(*doctor.Report) bool) (r *doctor.Report) {
	g.Helper()
	for range 3 {
		if r = g.examine(file); seen(r) {
			break
		}
	}
	return r
}

func names(r *doctor.Report, id string) *doctor.Finding {
	i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.ID == id })
	if i < 0 {
		return nil
	}
	return &r.Findings[i]
}

// with writes a variant of the configuration to a file of its own.
func (g *gate) with(name, old, replacement string) string {
	g.Helper()
	text := strings.Replace(g.text, old, replacement, 1)
	if text == g.text {
		g.Fatalf("no %q in the configuration", old)
	}
	file := filepath.Join(g.dir, name+".Caddyfile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		g.Fatal(err)
	}
	return file
}

// TestDoctor: a good set-up passes, with proof; each broken one is named.
func TestDoctor(t *testing.T) {
	program.Need(t, "prlimit")
	program.Need(t, "setpriv")
	g := newHost(t, "")
	const source = "\t\tsource udp :62201\n"
	g.text = strings.Replace(g.text, "\t\tfirewall nftables {", source+"\t\tfirewall nftables {", 1)
	g.write(g.text)
	g.start()
	good := g.examine(g.file)
	if !good.OK || len(good.Proofs) != 4 {
		t.Errorf("the good set-up: %+v", good)
	}
	for _, p := range good.Proofs {
		if want := map[string]doctor.Verdict{"tcp/2222": doctor.Closed, "udp/2222": doctor.Silent}[p.Port]; p.Verdict != want || p.Service != "ssh" {
			t.Errorf("the good set-up: %+v, want %s", p, want)
		}
	}
	if links := g.host.Run("ip", "-o", "link"); strings.Contains(links, "knockdoc") {
		t.Errorf("the doctor left %s", links)
	}

	g.host.Echo("tcp", "0.0.0.0:2224")
	file := g.with("guarded", "\tknock {", "\tlayer4 {\n:2224 {\nroute {\nknock relay {\nadmit {\necho\n}\n}\n}\n}\n}\nknock {\nservice relay tcp/2224\n")
	relay := func(p doctor.Proof) bool { return p.Service == "relay" && p.Family == "ipv4" }
	guarded := g.examineUntil(file, func(r *doctor.Report) bool {
		return slices.ContainsFunc(r.Proofs, func(p doctor.Proof) bool { return relay(p) && p.Verdict == doctor.Open })
	})
	i := slices.IndexFunc(guarded.Proofs, relay)
	if !guarded.OK || i < 0 || guarded.Proofs[i].Verdict != doctor.Open || !guarded.Proofs[i].Guarded || slices.ContainsFunc(good.Proofs, func(p doctor.Proof) bool { return p.Guarded }) {
		t.Errorf("a port that a frame guards: %+v", guarded)
	}

	pid := fmt.Sprint(g.caddy.Process.Pid)
	nft := func(rules string) { g.host.RunInput(rules, "nft", "-f", "-") }
	key := filepath.Join(g.dir, "alice.key")
	if err := os.WriteFile(key, []byte("a secret of alice, long enough"), 0o644); err != nil {
		t.Fatal(err)
	}
	for folder := g.dir; folder != "/"; folder = filepath.Dir(folder) {
		if info, err := os.Stat(folder); err == nil && info.Mode().Perm()&1 == 0 {
			_ = os.Chmod(folder, info.Mode().Perm()|1) // those of the test
		}
	}
	const dnat = "table ip nat {\nchain pub {\ntype nat hook prerouting priority dstnat;\nfib daddr type local tcp dport 2222 dnat to 172.17.0.2:22\n}\n}"
	for _, row := range []struct {
		id, subject, text string
		level             doctor.Level
		file              string
		spoil             func()
		mend              []string
	}{
		{
			id: "foreign-drop", subject: "ssh", text: "chain inet filter input drops", level: doctor.Problem, file: g.file,
			spoil: func() {
				nft("table inet filter {\nchain input {\ntype filter hook input priority 0; policy drop;\n}\n}")
			},
			mend: []string{"nft", "delete", "table", "inet", "filter"},
		},
		{
			id: "proof", text: "a stranger reaches nothing", level: doctor.Warning, file: g.file,
			spoil: func() {
				nft("table inet wall {\nchain in {\ntype filter hook input priority 0;\niifname \"knockdoc0\" drop\n}\n}")
			},
			mend: []string{"nft", "delete", "table", "inet", "wall"},
		},
		{
			id: "published", subject: "ssh", text: "walks past firewall nftables", level: doctor.Problem,
			file:  g.with("input", "firewall nftables {", "firewall nftables {\nhook input"),
			spoil: func() { nft(dnat) }, mend: []string{"nft", "delete", "table", "ip", "nat"},
		},
		{
			id: "userland-proxy", subject: "ssh", text: "one address for all clients", level: doctor.Problem, file: g.file,
			spoil: func() {
				cmd := g.host.Command(context.Background(), "bash", "-c", "exec -a docker-proxy /usr/bin/python3 -c 'import time; print(flush=True); time.sleep(600)' -proto tcp -host-ip 0.0.0.0 -host-port 2222 -container-ip 172.17.0.2 -container-port 22")
				p := program.Start(t, cmd)
				p.Await(t, "the proxy", func() bool { return p.Log.String() != "" })
			},
			mend: []string{"pkill", "-f", "docker-proxy .*-host-port 2222"},
		},
		{
			id: "http3", subject: "ssh", text: "udp/2222", level: doctor.Problem,
			file: g.with("http3", "service ssh tcp/2222 udp/2222", "service ssh tcp/2222") + "+https://:2222 {\ntls internal\n}\n",
		},
		{
			id: "trusted-proxies", text: "X-Forwarded-For", level: doctor.Problem,
			file: g.with("proxies", "\tknock {", "\tservers {\n\t\ttrusted_proxies static private_ranges\n\t}\n\tknock {") + "+http://:8080 {\nknock\n}\n",
		},
		{
			id: "key-file", subject: key, text: "every user of this host", level: doctor.Problem,
			file: g.with("key", `secret "a secret of alice, long enough"`, "secret {file."+key+"}"),
		},
		{
			id: "shut", subject: "ssh", text: "no source, door or HTTP handler", level: doctor.Problem,
			file: g.with("shut", source, ""),
		},
		{
			id: "file-limit", text: "1024 open files", level: doctor.Warning, file: g.file,
			spoil: func() { g.host.Run("prlimit", "--pid", pid, "--nofile=1024:1024") },
		},
		{
			id: "open", subject: "web", text: "proved open", level: doctor.Problem,
			file:  g.with("open", "service ssh tcp/2222", "service web tcp/2223\n\t\tservice ssh tcp/2222"),
			spoil: func() { g.host.Echo("tcp", "0.0.0.0:2223") },
		},
		{
			id: "capability", subject: "CAP_NET_RAW", text: "source packet", level: doctor.Problem,
			file: g.with("raw", "\t\tfirewall nftables {", "\t\tsource packet\n\t\tfirewall nftables {"),
			spoil: func() {
				g.caddy.Kill()
				g.startAs("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--")
			},
		},
		// The last one: nobody mends it.
		{
			id: "rules", subject: "nftables", text: "do not stand", level: doctor.Problem, file: g.file,
			spoil: func() {
				g.caddy.Kill()
				g.host.Run("nft", "delete", "table", "inet", "caddy_knock")
			},
		},
	} {
		file := row.file
		if name, more, ok := strings.Cut(file, "+"); ok {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, append(text, more...), 0o600); err != nil {
				t.Fatal(err)
			}
			file = name
		}
		if row.spoil != nil {
			row.spoil()
		}
		r := g.examineUntil(file, func(r *doctor.Report) bool { return names(r, row.id) != nil })
		f := names(r, row.id)
		switch {
		case f == nil:
			t.Errorf("%s: not found among %+v", row.id, r.Findings)
		case f.Level != row.level || row.subject != "" && f.Subject != row.subject || !strings.Contains(f.Text, row.text) || f.Advice == "":
			t.Errorf("%s: %+v", row.id, *f)
		}
		if row.mend != nil {
			g.host.Run(row.mend...)
		}
	}
}
