// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// machine is where it was measured, and with what.
type machine struct {
	Date     string
	CPU      string
	CPUs     int
	Kernel   string
	Go       string
	Load     float64 // of the last minute, at the start
	Versions map[string]string
}

// versionCommands tell the versions of those who are compared.
var versionCommands = map[string][]string{
	"haproxy": {"haproxy", "-v"},
	"nginx":   {"nginx", "-v"},
	"knockd":  {"knockd", "-V"},
	"fwknopd": {"fwknopd", "-V"},
	"redis":   {"redis-server", "--version"},
	"nft":     {"nft", "--version"},
	"iperf3":  {"iperf3", "--version"},
}

var (
	version = regexp.MustCompile(`v?\d+\.\d+[^\s,)]*`)
	modelOf = regexp.MustCompile(`(?m)^model name\s*:\s*(.*)$`)
)

// thisMachine looks around. It warns where others keep the processors busy.
func thisMachine(ctx context.Context, o options) machine {
	m := machine{
		Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), CPUs: runtime.NumCPU(), Go: runtime.Version(), Versions: make(map[string]string),
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := modelOf.FindSubmatch(text); found != nil {
			m.CPU = string(found[1])
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = string(bytes.TrimSpace(text))
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &m.Load)
	}
	commands := map[string][]string{"caddy": {o.caddy, "version"}, "caddy-knock": {o.client, "version"}}
	for name, command := range versionCommands {
		commands[name] = command
	}
	for name, command := range commands {
		// Some end with an error after telling their version.
		text, _ := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if found := version.Find(text); found != nil {
			m.Versions[name] = string(found)
		}
	}
	if m.busy() {
		fmt.Fprintf(os.Stderr, "The machine is busy (load %.2f): trust no figure, and ratios with care.\n", m.Load)
	}
	return m
}

func (m *machine) busy() bool { return m.Load > 0.5 }

// String is a paragraph for readers.
func (m *machine) String() string {
	var versions []string
	for name, v := range m.Versions {
		versions = append(versions, name+" "+v)
	}
	slices.Sort(versions)
	busy := ""
	if m.busy() {
		busy = ", so **others were at work**"
	}
	return fmt.Sprintf("%s, %d processors, Linux %s, %s; %s. %s; load %.2f at the start%s.",
		m.CPU, m.CPUs, m.Kernel, m.Go, strings.Join(versions, ", "), m.Date, m.Load, busy)
}
