// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// soakClient runs the client program, each time from another address, so that what
// it sent and what came of it can be told.
type soakClient struct {
	s              *soak
	id, net        string
	ns             *netlab.NS
	rnd            *rand.Rand
	program, key   string
	tap            *tap
	next           int
	runs           []soakRun // of this round
	knocks, failed int
}

// soakRun is one run of the client program.
type soakRun struct {
	source netip.Addr
	port   string
	token  string // what was said through the stream
	ok     bool
}

const (
	// soakSources is from how many addresses a client knocks: more than it can in a
	// round.
	soakSources = 200
	firstSource = 10
)

func newSoakClient(s *soak, id string, ns *netlab.NS, network, device string) *soakClient {
	s.Helper()
	c := &soakClient{
		s: s, id: id, net: network, ns: ns, rnd: rand.New(rand.NewPCG(s.rnd.Uint64(), 0)),
		program: program.Client(s.T), key: filepath.Join(s.dir, id+".key"),
	}
	if err := os.WriteFile(c.key, []byte("a secret of "+id+", long enough\n"), 0o600); err != nil {
		s.Fatal(err)
	}
	var addresses strings.Builder
	for i := range soakSources {
		fmt.Fprintf(&addresses, "addr add %s%d/24 dev eth0\n", network, firstSource+i)
	}
	ns.RunInput(addresses.String(), "ip", "-batch", "-")
	c.tap = newTap(s, device)
	return c
}

// host is the server's address.
func (c *soakClient) host() string { return c.net + "1" }

func (c *soakClient) knockUntil(stop <-chan struct{}) {
	ports := []string{longPort, longPort, shortPort, bothPort, framePort}
	for len(c.runs) < soakSources {
		select {
		case <-stop:
			return
		default:
			c.knock(ports[c.rnd.IntN(len(ports))], time.Second)
		}
	}
}

// knock runs the client program once, and reports whether it got in.
func (c *soakClient) knock(port string, patience time.Duration) bool {
	c.knocks++
	r := soakRun{port: port, token: fmt.Sprintf("%s says %d\n", c.id, c.knocks)}
	args := []string{"--secret-file", c.key, "--connect-timeout", patience.String(), "--timeout", patience.String(), "--server-proof"}
	stdin := ""
	if port == framePort {
		r.source = netip.MustParseAddr(c.net + "2")
		stdin = r.token
		args = append([]string{"connect"}, args...)
	} else {
		r.source = netip.MustParseAddr(fmt.Sprint(c.net, firstSource+c.next%soakSources))
		c.next++
		args = append([]string{"open", "--source", r.source.String()}, args...)
		if port == bothPort {
			args = append(args, "--frame")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience+20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, append(args, c.id+"@"+c.host()+":"+port)...)
	cmd.Env = append(os.Environ(), "HOME="+c.s.dir, "XDG_CONFIG_HOME="+c.s.dir)
	var stdout bytes.Buffer
	cmd.Stdin, cmd.Stdout = strings.NewReader(stdin), &stdout
	var err error
	c.ns.Do(func() { err = cmd.Start() }) // a child of this thread is in its namespace
	if err != nil {
		c.s.Errorf("%s: %v", c.id, err)
		return false
	}
	r.ok = cmd.Wait() == nil && (stdin == "" || stdout.String() == stdin)
	if !r.ok {
		c.failed++
	}
	c.runs = append(c.runs, r)
	return r.ok
}

// reachable is whether the client gets into the port from the address.
func (c *soakClient) reachable(source netip.Addr, port string, patience time.Duration) bool {
	state, _ := c.ns.ProbeFrom("tcp", source.String(), net.JoinHostPort(c.host(), port), patience)
	return state == netlab.Open
}
