// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package command

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// gate is a gate made of iptables, as somebody might write it.
const gate = `
case $2 in tcp) new=--syn;; udp) new=;; esac
case $1 in
setup) for t in iptables ip6tables; do
	$t -w -C INPUT -p $2 $new --dport $3:$4 -j DROP 2>/dev/null || $t -w -A INPUT -p $2 $new --dport $3:$4 -j DROP || exit 1
done;;
teardown) for t in iptables ip6tables; do $t -w -D INPUT -p $2 $new --dport $3:$4 -j DROP; done;;
open|close)
	case $6 in ipv4) t=iptables;; ipv6) t=ip6tables;; esac
	case $1 in open) what=-I;; close) what=-D;; esac
	$t -w $what INPUT -s $5 -p $2 --dport $3:$4 -j ACCEPT;;
esac
`

// inode is the namespace's.
func inode(netns int) uint64 {
	var st unix.Stat_t
	if netns == 0 {
		_ = unix.Stat("/proc/self/ns/net", &st)
	} else {
		_ = unix.Fstat(netns, &st)
	}
	return st.Ino
}

func suiteJournal(netns int) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("knock-command-suite-%d", inode(netns)))
}

// enter is what a command begins with in order to run in the namespace, whichever
// process runs it.
func enter(netns int) []string {
	names, _ := filepath.Glob("/run/netns/*")
	for _, name := range names {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil && st.Ino == inode(netns) {
			return []string{"nsenter", "--net=" + name}
		}
	}
	return nil
}

var backend = coretest.FirewallBackend{
	New: func(netns int) (knockcore.Firewall, error) {
		in := enter(netns)
		template := func(window bool, args ...string) []*Template {
			argv := append(in[:len(in):len(in)], "/bin/sh", "-c", gate, "gate", "{knock.action}", "{knock.protocol}", "{knock.port_first}", "{knock.port_last}")
			t, err := Parse(append(argv, args...), window)
			if err != nil {
				panic(err)
			}
			return []*Template{t}
		}
		window := template(true, "{knock.address}", "{knock.family}")
		return New(Config{
			Open: Commands{window, window}, Close: Commands{window, window},
			Setup: template(false), Teardown: template(false), Journal: suiteJournal(netns),
		}), nil
	},
	Programs: []string{"iptables", "ip6tables", "nsenter"},
	Prepare: func(t *testing.T, host *netlab.NS) {
		path := suiteJournal(host.FD())
		_ = os.Remove(path)
		t.Cleanup(func() { _ = os.Remove(path) })
	},
	EndsWithProcess: true,
}

func TestMain(m *testing.M) {
	coretest.FirewallProcess(backend)
	os.Exit(m.Run())
}

func TestSuite(t *testing.T) { coretest.FirewallSuite(t, backend) }
