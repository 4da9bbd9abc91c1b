// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// forwarding is a running `forward`.
type forwarding struct {
	cmd     *exec.Cmd
	address string
	stderr  *program.Buffer
	stdout  *bufio.Reader
}

// startForward runs the built program, until the test ends if not before.
func startForward(t *testing.T, args ...string) *forwarding {
	t.Helper()
	f := &forwarding{stderr: new(program.Buffer)}
	f.cmd = exec.Command(program.Client(t), append([]string{"forward", "--json"}, args...)...)
	f.cmd.Stderr = f.stderr
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill()
		_ = f.cmd.Wait() // an error if the test has waited already
	})
	f.stdout = bufio.NewReader(stdout)
	line, err := f.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("Reading the address: %v; standard error:\n%s", err, f.stderr)
	}
	var told struct{ Listening, Target, Client string }
	if err := json.Unmarshal([]byte(line), &told); err != nil || told.Client != "alice" || told.Target == "" {
		t.Fatalf("Got %s, %v", line, err)
	}
	f.address = told.Listening
	return f
}

// stop ends it as Ctrl-C does.
func (f *forwarding) stop(t *testing.T) {
	t.Helper()
	if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(f.stdout)
	if err := f.cmd.Wait(); err != nil || len(rest) > 0 {
		t.Errorf("Got %v and %q after Ctrl-C, want a clean end", err, rest)
	}
}

// ask sends a request, half-closes, and returns the whole answer.
func ask(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if errors.Is(err, syscall.ECONNRESET) {
		return err.Error() // it was accepted and reset before we knew
	}
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return err.Error() // who writes into a reset is told of it, and who reads then is not
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

func skipWithoutSignals(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a test can't press Ctrl-C on Windows")
	}
}

func TestForward(t *testing.T) {
	skipWithoutSignals(t)
	profiles := ownProfiles(t)
	server := startServer(t, new(clienttest.Server))
	host, _ := split(server.Addr())
	saveProfile(t, profiles, "alice", knockclient.Profile{Server: host, Port: server.Port, ServerProof: true})
	f := startForward(t, "--listen", "0", "alice@"+host)
	if !strings.HasPrefix(f.address, "127.0.0.1:") {
		t.Errorf("It listens on %s, want 127.0.0.1", f.address)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			request := fmt.Sprint("request ", i)
			if got := ask(t, f.address, request); got != "you said "+request {
				t.Errorf("Got %q", got)
			}
		})
	}
	wg.Wait()
	if n := len(server.Frames()); n != 20 {
		t.Errorf("The server saw %d frames, want 20", n)
	}
	f.stop(t)
	if f.stderr.String() != "" {
		t.Errorf("Standard error is %q, want nothing", f.stderr)
	}
	if conn, err := net.Dial("tcp", f.address); err == nil {
		_ = conn.Close()
		t.Error("Somebody still listens after the end")
	}
}

// TestForwardTree is TestForward in this process, where the race detector sees
// it, ended by the context with connections open.
func TestForwardTree(t *testing.T) {
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true})
	server := startServer(t, new(clienttest.Server))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	stderr := new(program.Buffer)
	code := make(chan int, 1)
	go func() {
		code <- knockcli.Run(ctx, []string{"forward", "--listen", "0", "alice@" + server.Addr()}, knockcli.Options{Out: w, Err: stderr})
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	address, ok := strings.CutPrefix(line, "Listening on ")
	address, _, _ = strings.Cut(address, ",")
	if err != nil || !ok {
		t.Fatalf("Got %q, %v", line, err)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if got := ask(t, address, "hello"); got != "you said hello" {
				t.Errorf("Got %q", got)
			}
		})
	}
	wg.Wait()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if got := <-code; got != 0 || stderr.String() != "" {
		t.Errorf("Got exit code %d and %q, want a clean end", got, stderr)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("Got %d bytes, %v; want the connection closed", n, err)
	}
}

// TestForwardCtrlC ends it while connections are open.
func TestForwardCtrlC(t *testing.T) {
	skipWithoutSignals(t)
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true})
	server := startServer(t, &clienttest.Server{Serve: func(conn clienttest.Conn, _ *wire.TCPFrame) {
		_, _ = io.WriteString(conn, "hello")
		_, _ = io.Copy(io.Discard, conn)
	}})
	f := startForward(t, "--listen", "127.0.0.1:0", "alice@"+server.Addr())
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len("hello"))); err != nil {
		t.Fatal(err)
	}
	f.stop(t)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("Got %d bytes, %v; want the connection closed", n, err)
	}
}

// TestForwardRefused checks that a refusal is told, breaks the one connection,
// and nothing else.
func TestForwardRefused(t *testing.T) {
	skipWithoutSignals(t)
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true})
	server := startServer(t, &clienttest.Server{Answer: clienttest.Close})
	f := startForward(t, "--listen", "0", "alice@"+server.Addr())
	for range 2 {
		if got := ask(t, f.address, "x"); !strings.Contains(got, "reset") {
			t.Errorf("Got %q, want a reset", got)
		}
	}
	f.stop(t)
	if n := strings.Count(f.stderr.String(), "no server proof"); n != 2 {
		t.Errorf("Got %d reports, want 2:\n%s", n, f.stderr)
	}
}

// TestForwardLimit checks that a connection over the limit waits for a place.
func TestForwardLimit(t *testing.T) {
	skipWithoutSignals(t)
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true})
	arrived, release := make(chan struct{}, 3), make(chan struct{})
	server := startServer(t, &clienttest.Server{Serve: func(conn clienttest.Conn, _ *wire.TCPFrame) {
		arrived <- struct{}{}
		<-release
		_, _ = io.WriteString(conn, "done")
	}})
	f := startForward(t, "--listen", "0", "--max-connections", "2", "alice@"+server.Addr())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if got := ask(t, f.address, ""); got != "done" {
				t.Errorf("Got %q", got)
			}
		})
	}
	<-arrived
	<-arrived
	if n := len(server.Frames()); n != 2 {
		t.Errorf("%d connections are forwarded, want 2", n)
	}
	close(release)
	wg.Wait()
	f.stop(t)
}

func TestForwardWarns(t *testing.T) {
	skipWithoutSignals(t)
	ownProfiles(t)
	cmd := exec.Command(program.Client(t), "forward", "--listen", ":0", "--secret-stdin", "alice@127.0.0.1:1")
	cmd.Stdin = strings.NewReader(secretText + "\n")
	stderr := new(program.Buffer)
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "Listening on [::]:") || !strings.HasSuffix(line, ", forwarding to 127.0.0.1:1 as alice.\n") {
		t.Errorf("Got %q, %v", line, err)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(stderr.String(), "is not a loopback address: everybody who reaches it has the access of client alice") {
		t.Errorf("Standard error is %q, want a warning", stderr)
	}
	got := runProgram(t, nil, "forward", "--listen", "192.0.2.1:1", "--secret", secretText, "alice@127.0.0.1:1")
	got.want(t, 1, "listening: ")
}
