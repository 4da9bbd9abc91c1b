// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package coretest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// fwProcessEnv makes a test binary a firewall process.
const fwProcessEnv = "KNOCK_FIREWALL_PROCESS"

type fwProcess struct {
	Services []*knockcore.Service
	Windows  []knockcore.Window
}

// FirewallProcess belongs at the beginning of TestMain. In a process that
// [FirewallSuite] starts, in the namespace of the guarded host, it sets up the
// firewall, opens windows and waits to be killed; else it returns.
func FirewallProcess(b FirewallBackend) {
	task := os.Getenv(fwProcessEnv)
	if task == "" {
		return
	}
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	var p fwProcess
	fail(json.Unmarshal([]byte(task), &p))
	fw, err := b.New(0)
	fail(err)
	ctx := context.Background()
	fail(fw.Setup(ctx, p.Services))
	fail(fw.Open(ctx, p.Windows...))
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // ends with the test, if not killed before
	os.Exit(0)
}

// startFirewallProcess starts such a process and returns when its windows are
// open; kill ends it with SIGKILL.
func startFirewallProcess(l *fwLab, services []*knockcore.Service, windows ...knockcore.Window) (kill func()) {
	l.Helper()
	task, err := json.Marshal(fwProcess{services, windows})
	if err != nil {
		l.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	cmd := l.host.Command(l.Context(), self, "-test.run=^$")
	cmd.Env = append(os.Environ(), fwProcessEnv+"="+string(task))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		l.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill() // ip execs the command: it is the same process
		_ = cmd.Wait()
		_ = stdin.Close()
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if strings.TrimSpace(line) != "ready" {
		kill()
		l.Fatalf("the firewall process says %q", line)
	}
	return kill
}
