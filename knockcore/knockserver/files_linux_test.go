// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

const fewFiles = "KNOCKSERVER_TEST_FEW_FILES"

// TestFewFilesServer is the server of TestOutOfFiles, in a process of its own.
func TestFewFilesServer(t *testing.T) {
	if os.Getenv(fewFiles) == "" {
		t.Skip("it is a part of TestOutOfFiles")
	}
	limit := syscall.Rlimit{Cur: 48, Max: 48}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Nobody has to go before the files run out.
	ln := guarded(t, knockserver.Config{MaxPending: 1000, MaxStrangers: 1000, Wait: time.Hour})
	fmt.Println("listening on", ln.Addr())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the other process ends
		_ = ln.Close()
	}()
	serveEcho(ln)
}

// TestOutOfFiles opens more silent connections than the server may have files:
// the client still gets in, beside them and afterwards.
func TestOutOfFiles(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestFewFilesServer$", "-test.v")
	cmd.Env = append(os.Environ(), fewFiles+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	var address string
	for lines := bufio.NewScanner(stdout); address == "" && lines.Scan(); {
		_, address, _ = strings.Cut(lines.Text(), "listening on ")
	}
	d := knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: secretOf("alice"), Timeout: 20 * time.Second}}
	comes := func(when string) {
		t.Helper()
		conn, err := d.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		echoes(t, conn, when)
	}
	comes("before")
	for range 200 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for i := range 5 {
		comes(fmt.Sprint("beside them, ", i))
	}
}
