// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// three is a fleet of three Caddys, each in a namespace of its own with its
// nftables, behind a router.
type three struct {
	*testing.T
	lab            *netlab.Lab
	router, client *netlab.NS
	nodes          []*node
	storage        string               // Caddy's, if not each node's own
	store          func(n *node) string // the line or block in the Caddyfile
	redis          *program.Process     // on the router
	dir            string
	alice          *knockcore.Credential
}

type node struct {
	name, ip string
	gateway  string
	ns       *netlab.NS
	caddy    *program.Process
}

const (
	clientIP = "198.51.100.2"
	routerIP = "198.51.100.1"
	// patience is how long what should be open may take.
	patience = 10 * time.Second
)

const threeFile = `{
	admin localhost:2019
	storage file_system %[3]s
	knock {
		time_window 5s
		client alice {
			secret {file.%[1]s/alice.key}
			services ssh shell
		}
		service ssh tcp/22 {
			open_for 10m
			firewall nftables
		}
		service shell tcp/2222 {
			open_for 10m
		}
		source udp :62201
		firewall nftables
		%[2]s
	}
	layer4 {
		:2222 {
			route {
				knock shell {
					admit {
						knock_relay 127.0.0.1:22
					}
				}
				proxy 127.0.0.1:8081
			}
		}
	}
}
http://:8081 {
	respond cover
}
`

// newThree makes the namespaces.
func newThree(t *testing.T, programs ...string) *three {
	t.Helper()
	netlab.Need(t, append(programs, "nft")...)
	f := &three{T: t, lab: netlab.New(t), dir: t.TempDir()}
	write(t, filepath.Join(f.dir, "alice.key"), aliceSecret+"\n")
	f.alice = &knockcore.Credential{Client: &knockcore.Client{ID: "alice"}, Secret: knockcore.NewSecret([]byte(aliceSecret))}
	f.alice.MAC = knockcore.NewMAC(f.alice.Secret.Bytes())
	f.router, f.client = f.lab.NS("router"), f.lab.NS("client")
	f.router.Forward()
	f.lab.Link(f.router, []string{routerIP + "/24"}, f.client, []string{clientIP + "/24"})
	f.client.DefaultRoute(routerIP)
	for i, name := range []string{"a", "b", "c"} {
		n := &node{name: name, ip: fmt.Sprintf("10.0.%d.2", i+1), gateway: fmt.Sprintf("10.0.%d.1", i+1), ns: f.lab.NS(name)}
		f.lab.Link(f.router, []string{n.gateway + "/24"}, n.ns, []string{n.ip + "/24"})
		n.ns.DefaultRoute(n.gateway)
		n.ns.Echo("tcp", "0.0.0.0:22")
		f.nodes = append(f.nodes, n)
	}
	return f
}

// startThree starts three nodes of a Redis.
func startThree(t *testing.T) *three {
	t.Helper()
	f := newThree(t, "redis-server", "redis-cli")
	f.store = func(n *node) string { return "store redis " + n.gateway + ":6379 {\nnode " + n.name + "\n}" }
	f.startRedis()
	for _, n := range f.nodes {
		f.startNode(n)
	}
	f.forgive()
	return f
}

func (f *three) startRedis() {
	f.Helper()
	f.redis = program.Start(f, f.router.Command(context.Background(), "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no",
		"--save", "", "--dir", f.dir, "--port", "6379"))
	f.redis.Await(f, "Redis", func() bool {
		out, err := f.router.Try("redis-cli", "ping")
		return err == nil && strings.Contains(out, "PONG")
	})
}

func (f *three) startNode(n *node) {
	f.Helper()
	home := filepath.Join(f.dir, n.name)
	_ = os.MkdirAll(home, 0o700)
	file := filepath.Join(home, "Caddyfile")
	storage := f.storage
	if storage == "" {
		storage = home + "/storage"
	}
	write(f.T, file, fmt.Sprintf(threeFile, f.dir, f.store(n), storage))
	cmd := n.ns.Command(context.Background(), program.Caddy(f), "run", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home+"/data", "XDG_CONFIG_HOME="+home+"/config")
	n.caddy = program.Start(f, cmd)
	n.caddy.Await(f, "Caddy to serve", func() bool { return strings.Contains(n.caddy.Log.String(), "serving initial configuration") })
}

// forgive makes the epoch old, so that the test need not wait, and the nodes see it.
func (f *three) forgive() {
	f.Helper()
	f.router.Run("redis-cli", "hset", "{knock}:epoch", "base", "1")
	for _, n := range f.nodes {
		program.Await(f.T, n.name+" to take knocks", func() bool { f.send(n, f.datagram(22)); return f.in(n, 50*time.Millisecond) })
		f.revoke(n)
	}
}

// datagram is a knock for the service at the port.
func (f *three) datagram(port uint16) []byte {
	f.Helper()
	d := wire.Datagram{Method: knockcore.MethodUDP, Port: port, Time: time.Now().UnixMilli()}
	b, err := d.Seal(f.alice)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

func (f *three) send(n *node, b []byte) {
	f.Helper()
	c, err := f.client.Dial("udp", n.ip+":62201", time.Second)
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(b)
}

// in reports whether the client gets through the node's firewall.
func (f *three) in(n *node, timeout time.Duration) bool {
	state, _ := f.client.ProbeFrom("tcp", "", n.ip+":22", timeout)
	return state == netlab.Open
}

func (f *three) everywhere(in bool) {
	f.Helper()
	for _, n := range f.nodes {
		program.Await(f.T, fmt.Sprintf("%s: in %v", n.name, in), func() bool { return f.in(n, 100*time.Millisecond) == in })
	}
}

// revoke revokes at one node what alice has, and waits until all are shut.
func (f *three) revoke(n *node) {
	f.Helper()
	f.caddyOf(n, "revoke", "--client", "alice")
	for _, other := range f.nodes {
		program.Await(f.T, other.name+" to shut", func() bool { return !f.in(other, 100*time.Millisecond) })
	}
}

func (f *three) caddyOf(n *node, args ...string) string {
	f.Helper()
	return n.ns.Run(append([]string{program.Caddy(f), "knock"}, args...)...)
}

// frame dials a node, sends a frame and returns the stream and the first answer.
func (f *three) frame(n *node, b []byte) (net.Conn, string) {
	f.Helper()
	c, err := f.client.Dial("tcp", n.ip+":2222", 20*time.Second)
	if err != nil {
		f.Errorf("%s: %v", n.name, err)
		return nil, ""
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = c.Write(b)
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	buf := make([]byte, 5)
	_, _ = io.ReadFull(c, buf)
	return c, string(buf)
}

func (f *three) envelope() []byte {
	f.Helper()
	t := wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: 2222, Time: time.Now().UnixMilli()}
	b, err := t.Seal(f.alice)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

const letIn = "GET /" // the echo of the service behind

func TestThreeNodes(t *testing.T) {
	f := startThree(t)
	a, b, c := f.nodes[0], f.nodes[1], f.nodes[2]

	// Knock at A, connect through B.
	var took []time.Duration
	for range 9 {
		knock := f.datagram(22)
		start := time.Now()
		f.send(a, knock)
		program.Await(t, "b to let in", func() bool { return f.in(b, 5*time.Millisecond) })
		took = append(took, time.Since(start))
		f.everywhere(true)
		// Revoke at C: A's and B's windows close.
		f.revoke(c)
	}
	slices.Sort(took)
	t.Logf("knock at a, connect through b: median %v of %v", took[len(took)/2], took)

	// A datagram that was spent at A opens nothing at B.
	knock := f.datagram(22)
	f.send(a, knock)
	f.everywhere(true)
	f.revoke(b)
	for _, n := range f.nodes {
		f.send(n, knock)
	}
	spent := f.datagram(22) // behind them in every queue: when it counts, they were judged
	f.send(b, spent)
	f.everywhere(true)
	f.revoke(a)

	// 100 copies of one frame at three nodes at once.
	for range 3 {
		frame := f.envelope()
		var mu sync.Mutex
		wins, covers := 0, 0
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				conn, got := f.frame(f.nodes[i%3], frame)
				if conn == nil {
					return
				}
				defer conn.Close()
				mu.Lock()
				defer mu.Unlock()
				switch got {
				case letIn:
					wins++
				case "HTTP/":
					covers++
				default:
					t.Errorf("a copy gets %q", got)
				}
			})
		}
		wg.Wait()
		if wins != 1 || covers != 99 {
			t.Errorf("%d copies were let in, %d saw the cover", wins, covers)
		}
	}

	// A stream that A admitted is cut by revoking at C.
	stream, got := f.frame(a, f.envelope())
	if got != letIn {
		t.Fatalf("the frame gets %q", got)
	}
	f.caddyOf(c, "revoke", "--client", "alice")
	_ = stream.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, stream); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the stream at a lives on after revoking at c")
	}
	stream.Close()

	// A node is killed and comes again: it learns what it missed, and its windows
	// open.
	b.caddy.Kill()
	f.send(a, f.datagram(22))
	for _, n := range []*node{a, c} {
		program.Await(t, n.name, func() bool { return f.in(n, 100*time.Millisecond) })
	}
	if f.in(b, 100*time.Millisecond) {
		t.Error("b is open, although it is dead")
	}
	f.startNode(b)
	f.everywhere(true)
	f.send(b, spent)

	// Redis ends: live grants go on, also in the kernel, and nothing new comes in.
	f.redis.Kill()
	for _, n := range f.nodes {
		program.Await(t, "the health of "+n.name, func() bool { return strings.Contains(f.caddyOf(n, "status"), "NOT WELL") })
		if !f.in(n, patience) {
			t.Errorf("%s ended a live grant with Redis", n.name)
		}
		if conn, got := f.frame(n, f.envelope()); got != "HTTP/" {
			t.Errorf("%s without Redis: a frame gets %q, want the cover", n.name, got)
		} else {
			conn.Close()
		}
	}
	// A node that starts without Redis starts, and admits nothing.
	c.caddy.Kill()
	f.startNode(c)
	if conn, got := f.frame(c, f.envelope()); got != "HTTP/" {
		t.Errorf("%s, started without Redis: a frame gets %q, want the cover", c.name, got)
	} else {
		conn.Close()
	}
	// It comes back empty: what was spent stays spent, live grants are known again.
	late := f.envelope()
	f.startRedis()
	for _, n := range f.nodes {
		program.Await(t, "the health of "+n.name, func() bool { return !strings.Contains(f.caddyOf(n, "status"), "NOT WELL") })
		if conn, got := f.frame(n, late); got != "HTTP/" {
			t.Errorf("%s, Redis empty: a frame of before gets %q, want the cover", n.name, got)
		} else {
			conn.Close()
		}
	}
	f.everywhere(true)
	program.Await(t, "frames to be taken again", func() bool {
		conn, got := f.frame(a, f.envelope())
		conn.Close()
		return got == letIn
	})
	f.revoke(c)
	for _, n := range f.nodes { // each tells Redis of itself again, by and by
		program.Await(t, "status to show "+n.name, func() bool { return strings.Contains(f.caddyOf(c, "status"), "\n"+n.name+" ") })
	}
}
