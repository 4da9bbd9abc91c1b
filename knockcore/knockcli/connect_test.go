// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient/clienttest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// startServer starts a server that admits alice and answers to a request only
// when the client has said all.
func startServer(t *testing.T, s *clienttest.Server) *clienttest.Server {
	t.Helper()
	s.Client, s.Secret = "alice", testSecret
	if s.Serve == nil {
		s.Serve = func(conn clienttest.Conn, _ *wire.TCPFrame) {
			request, _ := io.ReadAll(conn)
			_, _ = io.WriteString(conn, "you said "+string(request))
		}
	}
	s.Start(t)
	return s
}

// split returns host and port of an address.
func split(address string) (host, port string) {
	host, port, _ = net.SplitHostPort(address)
	return host, port
}

var runners = []func(*testing.T, io.Reader, ...string) result{runProgram, runTree}

func TestConnect(t *testing.T) {
	profiles := ownProfiles(t)
	server := startServer(t, new(clienttest.Server))
	none := startServer(t, &clienttest.Server{HintNone: true})
	mapped := startServer(t, &clienttest.Server{Port: 22})
	host, port := split(server.Addr())
	key := filepath.Join(t.TempDir(), "alice.key")
	if err := os.WriteFile(key, []byte(secretText+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ALICES_KEY", secretText)
	saveProfile(t, profiles, "alice", knockclient.Profile{Server: host, Port: server.Port, ServerProof: true})
	saveProfile(t, profiles, "none", knockclient.Profile{HintNone: true, ServerProof: true})
	saveProfile(t, profiles, "mapped", knockclient.Profile{ProtectedPort: 22, ServerProof: true})
	tests := map[string][]string{
		"profile":            {"alice@" + server.Addr()},
		"port of profile":    {"alice@" + host},
		"as ssh does":        {"alice@" + host, port},
		"by host":            {host, port},
		"profile by name":    {"--profile", "alice"},
		"name of host":       {"--profile", "alice", "localhost:" + port},
		"secret file":        {"--client", "alice", "--secret-file", key, server.Addr()},
		"secret environment": {"--secret-env", "ALICES_KEY", "--server-proof", "alice@" + server.Addr()},
		"secret flag":        {"--secret", secretText, "alice@" + server.Addr()},
		"secret flag, file":  {"--secret", "file:" + key, "alice@" + server.Addr()},
		"v1":                 {"--method", "tcp-auth-frame-v1", "alice@" + server.Addr()},
		"hint none":          {"none@" + none.Addr()},
		"hint by flag":       {"--hint", "none", "--profile", "alice", none.Addr()},
		"protected port":     {"mapped@" + mapped.Addr()},
		"port by flag":       {"--port", "22", "--profile", "alice", mapped.Addr()},
		"IPv4":               {"-4", "--profile", "alice", "localhost", port},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			for _, run := range runners {
				got := run(t, strings.NewReader("hello"), append([]string{"connect"}, args...)...)
				got.want(t, knockcli.ExitOK)
				if got.stdout != "you said hello" {
					t.Errorf("Got %q, want the whole answer", got.stdout)
				}
				if warned := strings.Contains(got.stderr, "warning: --secret"); warned != (name == "secret flag") || !warned && got.stderr != "" {
					t.Errorf("Standard error is %q", got.stderr)
				}
			}
		})
	}
}

func TestConnectRefused(t *testing.T) {
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true})
	saveProfile(t, profiles, "bob", knockclient.Profile{Server: "ssh.example.org"})
	saveProfile(t, profiles, "open", knockclient.Profile{})
	if err := os.Chmod(profiles.Path("open"), 0o644); err != nil {
		t.Fatal(err)
	}
	closed := program.FreeAddress(t)
	at := func(s clienttest.Server) string { return startServer(t, &s).Addr() }
	cover := func(conn clienttest.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }
	other := startServer(t, &clienttest.Server{Cover: cover, Port: 1}).Addr()
	silent := func(clienttest.Conn, *wire.TCPFrame) {}
	tests := map[string]struct {
		args []string
		code int
		text []string
	}{
		"proof wrong":    {[]string{"alice@" + at(clienttest.Server{Answer: clienttest.ProveWrongly})}, 5, []string{"wrong server proof", "check: that it knows client alice"}},
		"proof short":    {[]string{"alice@" + at(clienttest.Server{Answer: clienttest.ProveShortly})}, 5, []string{"only 25 of 50 bytes"}},
		"no proof":       {[]string{"alice@" + at(clienttest.Server{Answer: clienttest.Close})}, 5, []string{"no server proof", "--server-proof=false"}},
		"silent":         {[]string{"--timeout", "2s", "alice@" + at(clienttest.Server{Answer: clienttest.Silence})}, 5, []string{"no server proof: context deadline exceeded"}},
		"cover":          {[]string{"alice@" + other}, 5, []string{`the answer begins with "HTTP/1.1 400 Bad"`, "(else give its port with --port)"}},
		"closed port":    {[]string{"alice@" + closed}, 4, []string{"connection refused", "may you reach its port?"}},
		"no such host":   {[]string{"alice@host.invalid:22"}, 4, []string{"host.invalid"}},
		"other server":   {[]string{"bob@127.0.0.1:22"}, 3, []string{"for server ssh.example.org, not for 127.0.0.1", "give --profile bob", "caddy-knock profile add CLIENT@127.0.0.1"}},
		"open profile":   {[]string{"open@127.0.0.1:22"}, 3, []string{"(mode 0644); run: chmod 600 '" + profiles.Path("open") + "'"}},
		"service silent": {[]string{"alice@" + at(clienttest.Server{Serve: silent})}, 1, []string{"closed it without sending anything", "Does the service behind it run?"}},
		"refused silently": {[]string{"--server-proof=false", "--port", "9", "alice@" + at(clienttest.Server{})}, 1, []string{
			"closed it without sending anything", "that it protects port 9", "With --server-proof",
		}},
	}
	if runtime.GOOS == "windows" {
		delete(tests, "open profile")
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, run := range runners {
				in, w, err := os.Pipe() // nobody has said all
				if err != nil {
					t.Fatal(err)
				}
				got := run(t, in, append([]string{"connect"}, test.args...)...)
				got.want(t, test.code, test.text...)
				if got.stdout != "" {
					t.Errorf("Standard output is %q, want nothing", got.stdout)
				}
				_ = w.Close()
				_ = in.Close()
			}
		})
	}
}

func TestConnectSecretFileMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing about access on Windows")
	}
	ownProfiles(t)
	server := startServer(t, new(clienttest.Server))
	key := filepath.Join(t.TempDir(), "alice.key")
	if err := os.WriteFile(key, []byte(secretText), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"connect", "--secret-file", key, "alice@" + server.Addr()}
	runProgram(t, nil, args...).want(t, knockcli.ExitConfig, "run: chmod 600 '"+key+"'", "--insecure-file-mode")
	runProgram(t, strings.NewReader("x"), append(args, "--insecure-file-mode")...).want(t, knockcli.ExitOK)
}

// random is a stream of n bytes that two sides can make.
func random(seed uint64, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), n)
}

func sum(r io.Reader) []byte {
	h := sha256.New()
	_, _ = io.Copy(h, r)
	return h.Sum(nil)
}

// TestConnectLarge copies 64 MiB each way at the same time.
func TestConnectLarge(t *testing.T) {
	const size = 64 << 20
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true})
	received := make(chan []byte, 1)
	server := startServer(t, &clienttest.Server{Serve: func(conn clienttest.Conn, _ *wire.TCPFrame) {
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.Copy(conn, random(2, size))
			_ = conn.CloseWrite()
		})
		received <- sum(conn)
		wg.Wait()
	}})
	for _, kind := range []string{"pipe", "file"} {
		t.Run(kind, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program.Client(t), "connect", "alice@"+server.Addr())
			h := sha256.New()
			cmd.Stdin, cmd.Stdout, cmd.Stderr = random(1, size), h, os.Stderr
			if kind == "file" {
				cmd.Stdin, cmd.Stdout = fileOf(t, random(1, size)), fileOf(t, nil)
			}
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			if f, ok := cmd.Stdout.(*os.File); ok {
				rehash(t, f, h)
			}
			if !bytes.Equal(<-received, sum(random(1, size))) {
				t.Error("The server got something else")
			}
			if !bytes.Equal(h.Sum(nil), sum(random(2, size))) {
				t.Error("The client got something else")
			}
		})
	}
}

// fileOf makes a file with a content, ready to be read or written.
func fileOf(t *testing.T, content io.Reader) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if content != nil {
		if _, err := io.Copy(f, content); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return f
}

func rehash(t *testing.T, f *os.File, h hash.Hash) {
	t.Helper()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
}

// TestConnectServerEndsFirst checks the other half-close: the server has said
// all, and still listens.
func TestConnectServerEndsFirst(t *testing.T) {
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{})
	received := make(chan string, 1)
	server := startServer(t, &clienttest.Server{Serve: func(conn clienttest.Conn, _ *wire.TCPFrame) {
		_, _ = io.WriteString(conn, "tell me")
		_ = conn.CloseWrite()
		b, _ := io.ReadAll(conn)
		received <- string(b)
	}})
	cmd := exec.CommandContext(t.Context(), program.Client(t), "connect", "alice@"+server.Addr())
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
	// The end of the answer arrives while standard input is open.
	if answer, err := io.ReadAll(stdout); string(answer) != "tell me" || err != nil {
		t.Errorf("Got %q, %v", answer, err)
	}
	_, _ = io.WriteString(stdin, "my story")
	_ = stdin.Close()
	if got := <-received; got != "my story" {
		t.Errorf("The server got %q after its own end", got)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestConnectReset checks that a broken connection is no success.
func TestConnectReset(t *testing.T) {
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{ServerProof: true})
	server := startServer(t, &clienttest.Server{Serve: func(conn clienttest.Conn, _ *wire.TCPFrame) {
		_, _ = io.WriteString(conn, "some")
		_, _ = io.ReadFull(conn, make([]byte, 1))
		_ = conn.Conn.(*net.TCPConn).SetLinger(0)
	}})
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer w.Close()
	_, _ = w.WriteString("x")
	runProgram(t, in, "connect", "alice@"+server.Addr()).want(t, knockcli.ExitFailed, "the server ended the connection (connection reset): receiving: ", "reset by peer")
}

// TestConnectReaderLeaves checks that an end of our output is no occasion for
// words, as in connect ... | head.
func TestConnectReaderLeaves(t *testing.T) {
	profiles := ownProfiles(t)
	saveProfile(t, profiles, "alice", knockclient.Profile{})
	server := startServer(t, &clienttest.Server{Serve: func(conn clienttest.Conn, _ *wire.TCPFrame) {
		_, _ = io.Copy(conn, random(4, 64<<20))
	}})
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer w.Close()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program.Client(t), "connect", "alice@"+server.Addr())
	cmd.Stdin, cmd.Stderr = in, &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	_ = stdout.Close()
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Errorf("Got %v and %q, want a failure without words", err, &stderr)
	}
}
