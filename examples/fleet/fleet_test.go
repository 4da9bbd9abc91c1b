// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package fleet drives the example, and fleets of three Caddys, with Debian's
// redis-server.
package fleet

import (
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/redislab"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

var (
	//go:embed Caddyfile
	nodeFile string
	//go:embed balancer/Caddyfile
	balancerFile string
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	phoneKey      = "phone-key-0123456789abcdef"
	aliceSecret   = "the secret of alice, long enough"
	redisPassword = "the password of Redis"

	knockHost, mediaHost = "knock.example.com", "media.example.com"
	phone, stranger      = "127.0.0.5", "127.0.0.6"
)

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// site is the example, running for real: a load balancer, two nodes, Redis.
type site struct {
	redis          *redislab.Server
	balancer       string // HTTP
	ssh            string // the balancer's
	admins, nodes  []string
	caddys         []*program.Process
	alice          *knockcore.Credential
	configurations []string
}

func start(t *testing.T) *site {
	t.Helper()
	s := &site{redis: redislab.Start(t, "--requirepass", redisPassword), balancer: redislab.Address(t), ssh: redislab.Address(t)}
	keys := t.TempDir()
	write(t, filepath.Join(keys, "phone.key"), phoneKey+"\n")
	write(t, filepath.Join(keys, "alice.key"), aliceSecret+"\n")
	write(t, filepath.Join(keys, "redis.password"), redisPassword+"\n")
	s.alice = &knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte(aliceSecret))}
	s.alice.MAC = knockcore.NewMAC(s.alice.Secret.Bytes())
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the application") }))
	t.Cleanup(app.Close)
	sshd, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sshd.Close() })
	go func() {
		for {
			c, err := sshd.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-inside\r\n")
		}
	}()
	var sshPorts []string
	for _, name := range []string{"one", "two"} {
		admin, node, ssh, cover := redislab.Address(t), redislab.Address(t), redislab.Address(t), redislab.Address(t)
		text := strings.NewReplacer(
			"localhost:2019", admin, "10.0.0.10/32", "127.0.0.1/32",
			"/etc/caddy/knock/", keys+"/", "\tknock {\n\t\tclient", "\tknock {\n\t\tallow_local\n\t\tclient", // all of this is on loopback
			"10.0.0.20:6379 {", s.redis.Address+" {\n\t\t\tnode "+name, "10.0.0.30:8096", strings.TrimPrefix(app.URL, "http://"),
			"tcp/2222", "tcp/"+port(s.ssh), "\t\t:2222 {", "\t\t"+ssh+" {", "knock ssh {", "knock ssh {\n\t\t\t\t\tport "+port(s.ssh), "127.0.0.1:22\n", sshd.Addr().String()+"\n",
			"example.com:8080", "example.com:"+port(node), "tcp/8080", "tcp/"+port(node), "127.0.0.1:8081", cover, "http://:8081", "http://:"+port(cover),
		).Replace(nodeFile)
		dir := t.TempDir()
		s.configurations = append(s.configurations, filepath.Join(dir, "Caddyfile"))
		s.caddys = append(s.caddys, program.StartCaddy(t, dir, text, node, ssh, cover))
		s.admins, s.nodes, sshPorts = append(s.admins, admin), append(s.nodes, node), append(sshPorts, ssh)
	}
	program.StartCaddy(t, t.TempDir(), strings.NewReplacer(
		"localhost:2029", redislab.Address(t), "10.0.0.11:8080", s.nodes[0], "10.0.0.12:8080", s.nodes[1],
		"10.0.0.11:2222", sshPorts[0], "10.0.0.12:2222", sshPorts[1], "\t\t:2222 {", "\t\t"+s.ssh+" {", "example.com:8090", "example.com:"+port(s.balancer),
	).Replace(balancerFile), s.balancer)
	return s
}

// ask sends a request from a loopback address and returns status and body.
func ask(t *testing.T, from, method, address, host, path string, headers ...string) (int, string) {
	t.Helper()
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: program.Persistent(transport), Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// caddy runs a command of the built Caddy against a node.
func (s *site) caddy(t *testing.T, node int, args ...string) string {
	t.Helper()
	out, err := exec.Command(program.Caddy(t), append(append([]string{"knock"}, args...), "--address", s.admins[node])...).CombinedOutput()
	if err != nil {
		t.Fatalf("caddy knock %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// stream sends a frame through the balancer and returns what answers.
func (s *site) stream(t *testing.T, frame []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.ssh)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = conn.Write(frame)
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	buf := make([]byte, 16)
	n, _ := io.ReadAtLeast(conn, buf, 8)
	return string(buf[:n])
}

// TestExample: knock through the balancer, be in through the balancer, whichever
// node answers; Redis ends and comes back.
func TestExample(t *testing.T) {
	s := start(t)
	in := func(from string) (n int) {
		for range 4 { // two for each node
			status := http.StatusBadGateway
			for again := 3; status == http.StatusBadGateway && again > 0; again-- { // a node that was reloaded reset it
				status, _ = ask(t, from, "GET", s.balancer, mediaHost, "/")
			}
			if status == 200 {
				n++
			}
		}
		return n
	}
	if n := in(phone); n != 0 {
		t.Fatalf("%d of 4 requests are in before knocking", n)
	}
	knock := func() int {
		status, _ := ask(t, phone, "POST", s.balancer, knockHost, "/knock", "X-Api-Key", phoneKey)
		return status
	}
	if status := knock(); status != 200 {
		t.Fatalf("the knock gives %d", status)
	}
	program.Await(t, "both nodes to let in", func() bool { return in(phone) == 4 })
	if n := in(stranger); n != 0 {
		t.Errorf("%d of 4 requests of a stranger are in", n)
	}

	// A frame counts once, whichever node it comes to. The server is new to the
	// fleet, so that frames would be refused for a minute.
	_, err := redislab.Do(s.redis.Address, "PING")
	if err == nil {
		t.Error("Redis asks for no password")
	}
	cli := func(args ...string) {
		t.Helper()
		cmd := exec.Command(program.Need(t, "redis-cli"), append([]string{"-p", port(s.redis.Address), "--no-auth-warning", "-a", redisPassword}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("redis-cli: %v\n%s", err, out)
		}
	}
	frame := func() []byte {
		p := knockPort(t, s.ssh)
		f := wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: p, Time: time.Now().UnixMilli()}
		b, err := f.Seal(s.alice)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got := s.stream(t, frame()); !strings.HasPrefix(got, "HTTP/1.") {
		t.Errorf("a frame right after the beginning gives %q, want the cover", got)
	}
	cli("HSET", "{knock}:epoch", "base", "1")
	program.Await(t, "the nodes to take frames", func() bool { return strings.HasPrefix(s.stream(t, frame()), "SSH-2.0") })
	program.Await(t, "the nodes to take frames", func() bool { return strings.HasPrefix(s.stream(t, frame()), "SSH-2.0") })
	f := frame()
	wins := 0
	for range 6 {
		if strings.HasPrefix(s.stream(t, f), "SSH-2.0") {
			wins++
		}
	}
	if wins != 1 {
		t.Errorf("%d of 6 copies of a frame were let in", wins)
	}

	// The operator sees both nodes, and nobody sees the password.
	program.Await(t, "the nodes", func() bool {
		status := s.caddy(t, 0, "status")
		return strings.Contains(status, "one (this one)") && strings.Contains(status, "\ntwo ")
	})
	for i, admin := range s.admins {
		for _, path := range []string{"/knock/status", "/metrics", "/config/"} {
			status, text := ask(t, "127.0.0.1", "GET", admin, admin, path)
			if status != 200 || strings.Contains(text, redisPassword) {
				t.Errorf("%s: %d, and the password is there: %v", path, status, strings.Contains(text, redisPassword))
			}
			if path == "/metrics" && (!strings.Contains(text, "caddy_knock_store_up 1") || !strings.Contains(text, "caddy_knock_store_request_seconds_count{operation=\"verify\"}")) {
				t.Error("metrics lack the store")
			}
		}
		if strings.Contains(s.caddys[i].Log.String(), redisPassword) {
			t.Error("the password is in the log")
		}
	}

	// Without Redis: nothing new, but who is in stays in. A reload does not need it.
	s.redis.Kill()
	program.Await(t, "the knock to be refused", func() bool { return knock() >= 400 })
	if n := in(phone); n != 4 {
		t.Errorf("%d of 4 requests are in without Redis", n)
	}
	if out, err := exec.Command(program.Caddy(t), "reload", "--force", "--config", s.configurations[0], "--address", s.admins[0]).CombinedOutput(); err != nil {
		t.Errorf("reload without Redis: %v\n%s", err, out)
	}
	if n := in(phone); n != 4 {
		t.Errorf("%d of 4 requests are in after a reload without Redis", n)
	}
	s.redis.Run() // empty
	program.Await(t, "the knock to be taken again", func() bool { return knock() == 200 })
	program.Await(t, "both nodes to let in", func() bool { return in(phone) == 4 })

	// Revoked at one, out at all. A node that Redis is gone for would say that it can't
	// tell the others.
	program.Await(t, "the other node to have Redis again", func() bool {
		status, _ := ask(t, "127.0.0.1", "GET", s.admins[1], s.admins[1], "/knock/health")
		return status == 200
	})
	s.caddy(t, 1, "revoke", "--client", "phone")
	program.Await(t, "both nodes to shut", func() bool { return in(phone) == 0 })
}

func knockPort(t *testing.T, address string) (p uint16) {
	t.Helper()
	if _, err := fmt.Sscan(port(address), &p); err != nil {
		t.Fatal(err)
	}
	return p
}
