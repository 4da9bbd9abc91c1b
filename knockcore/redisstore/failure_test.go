// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/redislab"
)

// held is a frame with a long time window, so that it stays in time over a whole
// test.
func held(n *testNode, from string) knockcore.Knock {
	k := frame(n.Gatekeeper, knockcore.MethodUDP, from, "ssh")
	k.Window = 10 * time.Minute
	return k
}

// refusedAgain wants a frame that was accepted before refused everywhere, whatever
// happened to the server meanwhile.
func refusedAgain(nodes []*testNode, frames ...knockcore.Knock) {
	for _, n := range nodes {
		n.Helper()
		for _, k := range frames {
			k.Client = n.Keyring().Client("alice")
			_, err := n.Admit(context.Background(), k)
			if r := knockcore.ReasonOf(err); r != knockcore.ReasonReplay && r != knockcore.ReasonStale {
				n.Errorf("%s: a replay gives %v", n.name, err)
			}
		}
	}
}

// fresh is a node that has no memory of its own: what it refuses, the rules refuse.
func fresh(t *testing.T, address string, nodes []*testNode) []*testNode {
	t.Helper()
	return append(nodes[:len(nodes):len(nodes)], newNode(t, fmt.Sprint("fresh", frames.Add(1)), address, nil))
}

func TestServerRestarts(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("with old data: %v", old), func(t *testing.T) {
			server, nodes := newFleet(t, "a", "b")
			before := held(nodes[0], "192.0.2.1")
			nodes[0].admit(before, knockcore.ReasonNone)
			nodes[0].knock("192.0.2.4", knockcore.ReasonNone)
			everywhere(t, nodes, "192.0.2.1", true)
			everywhere(t, nodes, "192.0.2.4", true)
			if old {
				server.Do("SAVE")
			}
			// Lost with the restart: a nonce, a grant, and a revocation.
			lost := held(nodes[1], "192.0.2.2")
			nodes[1].admit(lost, knockcore.ReasonNone)
			everywhere(t, nodes, "192.0.2.2", true)
			if _, errs := nodes[1].RevokeAll(t.Context(), knockcore.Selection{Prefix: knockcore.AddrPrefix(before.Source)}, "test"); errs != nil {
				t.Fatal(errs)
			}
			everywhere(t, nodes, "192.0.2.1", false)

			server.Kill()
			nodes[0].knock("192.0.2.3", knockcore.ReasonStoreError)
			for _, n := range nodes {
				if !n.in("192.0.2.2") || n.in("192.0.2.3") {
					t.Error("live grants do not go on")
				}
				program.Await(t, "health", func() bool { return n.store.Health() != nil })
			}
			server.Run()
			for _, n := range nodes {
				program.Await(t, "the server at "+n.name, func() bool { return n.store.link.Load() != nil })
			}
			all := fresh(t, server.Address, nodes)
			refusedAgain(all, before, lost)
			everywhere(t, all, "192.0.2.2", true)
			everywhere(t, all, "192.0.2.4", true)
			for _, n := range all {
				n.awaitOpen()
			}
			all[1].knock("192.0.2.3", knockcore.ReasonNone)
			everywhere(t, all, "192.0.2.3", true)
			refusedAgain(all, before, lost)
			for _, n := range all {
				if n.in("192.0.2.1") {
					t.Error(n.name + ": what was revoked came back with the old data")
				}
				program.Await(t, "health", func() bool { return n.store.Health() == nil })
			}
		})
	}
}

// The server restarts empty, and a grant is revoked before all nodes are back: it
// stays revoked.
func TestRevokedBeforeAllAreBack(t *testing.T) {
	server, nodes := newFleet(t, "a")
	proxy := redislab.NewProxy(t, server.Address)
	nodes = append(nodes, newNode(t, "b", proxy.Address, func(o *Options) { o.Timeout = 100 * time.Millisecond }))
	nodes[0].knock("192.0.2.1", knockcore.ReasonNone)
	nodes[0].knock("192.0.2.2", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	everywhere(t, nodes, "192.0.2.2", true)
	proxy.Block()
	epoch := nodes[0].store.link.Load().epoch
	server.Kill()
	server.Run()
	program.Await(t, "the new epoch", func() bool { l := nodes[0].store.link.Load(); return l != nil && l.epoch != epoch })
	if n, errs := nodes[0].RevokeAll(t.Context(), knockcore.Selection{Prefix: netip.MustParsePrefix("192.0.2.1/32")}, "test"); n != 1 || errs != nil {
		t.Fatal(n, errs)
	}
	if !nodes[1].in("192.0.2.1") {
		t.Fatal("b heard of it")
	}
	proxy.Unblock()
	everywhere(t, nodes, "192.0.2.1", false)
	everywhere(t, nodes, "192.0.2.2", true)
	everywhere(t, fresh(t, server.Address, nodes), "192.0.2.1", false)
}

// Somebody empties the database while all are connected.
func TestServerEmptied(t *testing.T) {
	server, nodes := newFleet(t, "a", "b")
	before := held(nodes[0], "192.0.2.1")
	nodes[0].admit(before, knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	server.Do("FLUSHALL")
	all := fresh(t, server.Address, nodes)
	refusedAgain(all, before)
	everywhere(t, all, "192.0.2.1", true)
	all[2].awaitOpen()
	all[2].knock("192.0.2.2", knockcore.ReasonNone)
	everywhere(t, all, "192.0.2.2", true)
	refusedAgain(all, before)
}

func TestPartition(t *testing.T) {
	for _, local := range []bool{false, true} {
		t.Run(fmt.Sprintf("local: %v", local), func(t *testing.T) {
			server, nodes := newFleet(t, "a")
			proxy := redislab.NewProxy(t, server.Address)
			cut := newNode(t, "b", proxy.Address, func(o *Options) { o.Local, o.Timeout = local, 200*time.Millisecond })
			nodes = append(nodes, cut)
			nodes[0].knock("192.0.2.1", knockcore.ReasonNone)
			nodes[0].knock("192.0.2.9", knockcore.ReasonNone)
			elsewhere := held(nodes[0], "192.0.2.5")
			nodes[0].admit(elsewhere, knockcore.ReasonNone)
			everywhere(t, nodes, "192.0.2.1", true)
			everywhere(t, nodes, "192.0.2.9", true)
			program.Await(t, "the nonce", func() bool { return cut.store.Seen(elsewhere.Replay) })

			proxy.Block()
			want := knockcore.ReasonStoreError
			if local {
				want = knockcore.ReasonNone
			}
			// Nobody is stuck: neither the first, which waits, nor a crowd.
			start := time.Now()
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() {
					k := held(cut, fmt.Sprintf("198.51.100.%d", i))
					if _, err := cut.Admit(context.Background(), k); knockcore.ReasonOf(err) != want {
						t.Errorf("cut off: %v, want %v", err, want)
					}
				})
			}
			wg.Wait()
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("200 knocks took %v", took)
			}
			own := held(cut, "192.0.2.2")
			cut.admit(own, want)
			// What was spent elsewhere before is known here, also alone.
			refusedAgain([]*testNode{cut}, elsewhere, own)
			if !cut.in("192.0.2.1") || cut.in("192.0.2.2") != local {
				t.Error("live grants do not go on, or a refused knock opened")
			}
			// Meanwhile, on the other side: a grant, and revocations on both.
			nodes[0].knock("192.0.2.3", knockcore.ReasonNone)
			revoke := func(n *testNode, addr string) {
				_, _ = n.RevokeAll(t.Context(), knockcore.Selection{Prefix: knockcore.AddrPrefix(netip.MustParseAddr(addr))}, "test")
			}
			revoke(nodes[0], "192.0.2.1")
			revoke(cut, "192.0.2.9")
			if cut.in("192.0.2.9") {
				t.Error("revoking here waits for the server")
			}

			proxy.Unblock()
			cut.store.Configure(Settings{Local: local, Timeout: patience})
			everywhere(t, nodes, "192.0.2.1", false)
			everywhere(t, nodes, "192.0.2.9", false)
			everywhere(t, nodes, "192.0.2.3", true)
			everywhere(t, nodes, "192.0.2.2", local)
			cut.knock("192.0.2.4", knockcore.ReasonNone)
			everywhere(t, nodes, "192.0.2.4", true)
			if local {
				program.Await(t, "the nonces are told", func() bool { return nodes[0].store.Seen(own.Replay) })
				refusedAgain(nodes, own)
			}
			program.Await(t, "health", func() bool { return cut.store.Health() == nil })
		})
	}
}

// A node that starts alone and admits by itself takes no frame that it could have
// accepted in a former life.
func TestStartAlone(t *testing.T) {
	server, _ := newFleet(t, "a")
	proxy := redislab.NewProxy(t, server.Address)
	proxy.Block()
	for _, local := range []bool{false, true} {
		n := newNode(t, fmt.Sprint("local-", local), proxy.Address, func(o *Options) { o.Local, o.Timeout = local, 100*time.Millisecond })
		if !local {
			n.knock("192.0.2.1", knockcore.ReasonStoreError)
			continue
		}
		k := held(n, "192.0.2.1")
		n.admit(k, knockcore.ReasonStale)
		program.Await(t, "frames to be taken", func() bool { return time.Since(n.store.opened) > testWindow })
		n.knock("192.0.2.2", knockcore.ReasonNone)
		refusedAgain([]*testNode{n}, k)
	}
}

func TestSlowServer(t *testing.T) {
	server, nodes := newFleet(t, "a")
	proxy := redislab.NewProxy(t, server.Address)
	slow := newNode(t, "b", proxy.Address, nil)
	nodes = append(nodes, slow)
	proxy.Delay(200 * time.Millisecond)
	k := slow.knock("192.0.2.1", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	refusedAgain(nodes, k)
	// Slower than the bound: the policy.
	slow.store.Configure(Settings{Timeout: 100 * time.Millisecond})
	slow.knock("192.0.2.2", knockcore.ReasonStoreError)
	proxy.Delay(0)
	program.Await(t, "the server", func() bool { return slow.store.link.Load() != nil })
	slow.store.Configure(Settings{Timeout: patience})
	slow.knock("192.0.2.3", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.3", true)
}

func TestOutOfMemory(t *testing.T) {
	server, nodes := newFleet(t, "a", "b")
	before := held(nodes[0], "192.0.2.1")
	nodes[0].admit(before, knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	server.Do("CONFIG", "SET", "maxmemory", "1mb")
	nodes[1].knock("192.0.2.2", knockcore.ReasonStoreError)
	refusedAgain(nodes[:1], before)
	if n, _ := nodes[1].RevokeAll(t.Context(), knockcore.Selection{Client: "alice"}, "test"); n != 1 {
		t.Errorf("%d revoked", n)
	}
	if nodes[1].in("192.0.2.1") {
		t.Error("revoking here needs the server's memory")
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	everywhere(t, nodes, "192.0.2.1", false)
	nodes[1].knock("192.0.2.3", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.3", true)
	refusedAgain(fresh(t, server.Address, nodes), before)

	// A server that would rather forget than refuse is none.
	server.Do("CONFIG", "SET", "maxmemory", "100mb")
	server.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	opts := testOptions(t, "c", testPrefix, server.Address)
	if _, err := Open(opts); err == nil || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("a server that evicts: %v", err)
	}
	program.Await(t, "the policy", func() bool { return nodes[0].store.link.Load() == nil })
}

// A node is killed: what it made stands, and it learns what it missed.
func TestNodeRestarts(t *testing.T) {
	server, nodes := newFleet(t, "a", "b")
	before := held(nodes[1], "192.0.2.1")
	nodes[1].admit(before, knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	_ = nodes[1].store.Close()
	nodes[0].knock("192.0.2.2", knockcore.ReasonNone)
	again := newNode(t, "b", server.Address, nil)
	everywhere(t, []*testNode{nodes[0], again}, "192.0.2.1", true)
	everywhere(t, []*testNode{nodes[0], again}, "192.0.2.2", true)
	refusedAgain([]*testNode{nodes[0], again}, before)
	again.knock("192.0.2.3", knockcore.ReasonNone)
}

func TestSentinelFailover(t *testing.T) {
	sentinelProgram := program.Need(t, "redis-sentinel")
	master := redislab.Start(t)
	host, port, _ := net.SplitHostPort(master.Address)
	replica := redislab.Start(t, "--replicaof", host, port)
	program.Await(t, "replication", func() bool { return strings.Contains(replica.Info("master_link_status"), "up") })
	address := redislab.Address(t)
	_, sentinelPort, _ := net.SplitHostPort(address)
	file := master.Config("sentinel.conf", fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor knock %s %s 1\n"+
		"sentinel down-after-milliseconds knock 10000\nsentinel failover-timeout knock 2000\n", sentinelPort, host, port))
	sentinel := program.Start(t, exec.Command(sentinelProgram, file))
	program.Await(t, "the sentinel to know the replica", func() bool {
		info, err := redislab.Do(address, "INFO", "sentinel")
		return err == nil && strings.Contains(info, "status=ok") && strings.Contains(info, "slaves=1")
	})
	master.Forgive(testPrefix)
	var nodes []*testNode
	for _, name := range []string{"a", "b"} {
		nodes = append(nodes, newNode(t, name, address, func(o *Options) { o.Sentinel = "knock" }))
	}
	before := held(nodes[0], "192.0.2.1")
	nodes[0].admit(before, knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	// The replica is cut off; what comes now it will never hear.
	replica.Do("REPLICAOF", "NO", "ONE")
	lost := held(nodes[1], "192.0.2.2")
	nodes[1].admit(lost, knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.2", true)
	replica.Do("CONFIG", "SET", "replica-priority", "1")
	master.Kill()
	replica.Do("PING")
	program.Await(t, "the failover", func() bool {
		_, _ = redislab.Do(address, "SENTINEL", "FAILOVER", "knock")
		return nodes[0].store.link.Load() != nil && nodes[1].store.link.Load() != nil && nodes[0].store.client != nil &&
			sentinelMaster(address) == replica.Address
	})
	for _, n := range nodes {
		n.awaitOpen()
	}
	nodes[0].knock("192.0.2.3", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.3", true)
	everywhere(t, nodes, "192.0.2.2", true)
	refusedAgain(nodes, before, lost)
	third := newNode(t, "c", address, func(o *Options) { o.Sentinel = "knock" })
	refusedAgain([]*testNode{third}, before, lost)
	everywhere(t, []*testNode{third}, "192.0.2.2", true)
	_ = sentinel
}

func sentinelMaster(address string) string {
	info, _ := redislab.Do(address, "INFO", "sentinel")
	for line := range strings.Lines(info) {
		if _, after, found := strings.Cut(line, "address="); found {
			master, _, _ := strings.Cut(after, ",")
			return master
		}
	}
	return ""
}
