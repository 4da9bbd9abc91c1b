// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/cut"
)

// fewFiles is a file limit with which a busy gate soon has none left.
const fewFiles = 8192

// checkHost makes the checks of this host.
func checkHost(ctx context.Context, p *Plan) (found []Finding) {
	found = append(found, checkProcess(p)...)
	found = append(found, checkCut(p)...)
	found = append(found, checkClock()...)
	found = append(found, checkProxies(p)...)
	found = append(found, checkRules(ctx, p)...)
	found = append(found, checkStands(ctx, p)...)
	return append(found, present()...)
}

// checkProcess looks at the Caddy that runs.
func checkProcess(p *Plan) (found []Finding) {
	pid := 0
	if p.Admin != "" {
		pid = listenerOf(p.Admin)
	}
	if pid == 0 {
		return []Finding{{
			ID: "process", Level: Warning, Text: "no Caddy was found at the admin endpoint " + p.Admin + ": its privileges and limits were not looked at",
			Advice: "start Caddy, and run the doctor as root in its network namespace",
		}}
	}
	proc, err := readProcess(pid)
	if err != nil {
		return []Finding{{ID: "process", Level: Note, Text: fmt.Sprintf("process %d can't be looked at: %v", pid, err), Advice: "run the doctor as root"}}
	}
	for _, need := range needs(p) {
		if proc.caps&(1<<need.bit) == 0 {
			found = append(found, Finding{
				ID: "capability", Level: Problem, Subject: need.name,
				Text:   fmt.Sprintf("Caddy (process %d) runs without %s, which %s needs", pid, need.name, need.what),
				Advice: "add " + need.name + " to AmbientCapabilities= and CapabilityBoundingSet= of its systemd unit, or: setcap " + strings.ToLower(need.name) + "+ep " + proc.exe,
			})
		}
	}
	if proc.files < fewFiles {
		found = append(found, Finding{
			ID: "file-limit", Level: Warning,
			Text:   fmt.Sprintf("Caddy (process %d) may have %d open files: strangers who hold connections use them up", pid, proc.files),
			Advice: "set LimitNOFILE=1048576 in its systemd unit",
		})
	}
	return found
}

// need is a capability and who needs it.
type need struct {
	bit  uint
	name string
	what string
}

func needs(p *Plan) (list []need) {
	for name, fw := range p.Firewalls {
		if slices.Contains([]string{"nftables", "ipset", "iptables"}, fw.Module) {
			list = append(list, need{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "firewall " + name})
			break
		}
	}
	if len(list) == 0 && slices.Contains(p.Sources, "nflog") {
		list = append(list, need{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "source nflog"})
	}
	if len(list) == 0 && slices.ContainsFunc(p.Services, func(s *knockcore.Service) bool { return s.CutOnExpire }) {
		list = append(list, need{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "on_expire cut"})
	}
	if slices.Contains(p.Sources, "packet") {
		list = append(list, need{unix.CAP_NET_RAW, "CAP_NET_RAW", "source packet"})
	}
	return list
}

// checkCut finds what keeps flows from being ended.
func checkCut(p *Plan) []Finding {
	if !slices.ContainsFunc(p.Services, func(s *knockcore.Service) bool { return s.CutOnExpire }) {
		return nil
	}
	err := cut.Missing(0)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EPERM) {
		return []Finding{{ID: "kernel", Level: Note, Text: fmt.Sprintf("whether flows can be cut was not found out: %v", err), Advice: "run the doctor as root"}}
	}
	return []Finding{{
		ID: "kernel", Level: Problem, Text: fmt.Sprintf("on_expire cut can't end all flows: %v", err),
		Advice: "use a kernel with CONFIG_INET_DIAG_DESTROY and nf_conntrack_netlink, or on_expire drain",
	}}
}

// checkClock asks the kernel whether somebody disciplines the clock.
func checkClock() []Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil || state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0 {
		return nil
	}
	return []Finding{{
		ID: "clock", Level: Warning, Text: "the clock is not synchronised: knocks carry the time and are refused when it differs too much",
		Advice: "run systemd-timesyncd, chrony or ntpd",
	}}
}

// checkStands asks the firewalls whether their rules stand.
func checkStands(ctx context.Context, p *Plan) (found []Finding) {
	for name, fw := range p.Firewalls {
		if fw.Stands == nil {
			continue
		}
		stands, err := fw.Stands(ctx)
		switch {
		case err != nil:
			found = append(found, Finding{ID: "rules", Level: Problem, Subject: name, Text: fmt.Sprintf("its rules can't be looked at: %v", err), Advice: "run the doctor as root"})
		case !stands:
			found = append(found, Finding{
				ID: "rules", Level: Problem, Subject: name, Text: "its rules do not stand: the services are open to everybody",
				Advice: "start Caddy, and load the rules at boot: caddy knock firewall print, examples/systemd",
			})
		}
	}
	return found
}

// checkProxies finds Docker's userland proxies of services' ports.
func checkProxies(p *Plan) (found []Finding) {
	for _, proxy := range userlandProxies() {
		if s := p.serviceAt(proxy.proto, proxy.port); s != nil {
			found = append(found, Finding{
				ID: "userland-proxy", Level: Problem, Subject: s.Name,
				Text:   fmt.Sprintf("docker-proxy (process %d) takes connections to %v/%d: what is behind sees one address for all clients", proxy.pid, proxy.proto, proxy.port),
				Advice: `set "userland-proxy": false in /etc/docker/daemon.json, or publish the port on 127.0.0.1 and let Caddy be in front`,
			})
		}
	}
	return found
}

// present names the other programs that shape this host's firewall.
func present() []Finding {
	var names []string
	for _, program := range []string{"nft", "iptables", "iptables-legacy", "firewall-cmd", "ufw", "docker", "podman"} {
		if _, err := exec.LookPath(program); err == nil {
			names = append(names, program)
		}
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		names = append(names, "no IPv6")
	}
	if len(names) == 0 {
		return nil
	}
	return []Finding{{ID: "present", Level: Note, Text: "on this host: " + strings.Join(names, ", ")}}
}
