// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// process is what /proc tells of one.
type process struct {
	caps  uint64 // effective
	files uint64 // soft limit of open files
	exe   string
}

func readProcess(pid int) (p process, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if p.caps, err = strconv.ParseUint(strings.TrimSpace(text), 16, 64); err != nil {
				return p, err
			}
		}
	}
	limits, err := os.ReadFile(dir + "/limits")
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(limits)) {
		if text, ok := strings.CutPrefix(line, "Max open files"); ok {
			if p.files, err = strconv.ParseUint(strings.Fields(text)[0], 10, 64); err != nil {
				p.files, err = 1<<63, nil // unlimited
			}
		}
	}
	p.exe, _ = os.Readlink(dir + "/exe")
	return p, nil
}

// listenerOf finds the process that listens on a TCP address of this network
// namespace, 0 if there is none, or none that we may look at.
func listenerOf(address string) int {
	_, port, err := net.SplitHostPort(strings.TrimPrefix(address, "tcp/"))
	if err != nil {
		return 0
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	var inodes []string
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		inodes = append(inodes, listeners(file, uint16(number))...)
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && slices.Contains(inodes, target) {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			return pid
		}
	}
	return 0
}

// listeners lists the sockets that listen on a port, as /proc names them.
func listeners(file string, port uint16) (sockets []string) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[3] == "0A" && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
			sockets = append(sockets, "socket:["+fields[9]+"]")
		}
	}
	return sockets
}

// userlandProxy is a docker-proxy and the port it publishes.
type userlandProxy struct {
	pid   int
	proto knockcore.Protocol
	port  uint16
}

func userlandProxies() (found []userlandProxy) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
		if !slices.ContainsFunc(args[:min(2, len(args))], func(a string) bool { return filepath.Base(a) == "docker-proxy" }) {
			continue
		}
		proxy := userlandProxy{proto: knockcore.TCP}
		proxy.pid, _ = strconv.Atoi(strings.Split(file, "/")[2])
		public := true
		for i := 1; i+1 < len(args); i++ {
			switch args[i] {
			case "-proto":
				if args[i+1] == "udp" {
					proxy.proto = knockcore.UDP
				}
			case "-host-port":
				port, _ := strconv.ParseUint(args[i+1], 10, 16)
				proxy.port = uint16(port)
			case "-host-ip":
				addr, err := netip.ParseAddr(args[i+1])
				public = err != nil || !addr.IsLoopback()
			}
		}
		if proxy.port != 0 && public {
			found = append(found, proxy)
		}
	}
	return found
}
