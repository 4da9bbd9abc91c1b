// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
)

// windows are the addresses in the kernel's set of IPv4 windows of service ssh, and
// how long they are open for.
func (g *gate) windows() map[string]time.Duration {
	g.Helper()
	return g.windowsOf("ssh")
}

func (g *gate) windowsOf(service string) map[string]time.Duration {
	g.Helper()
	found := make(map[string]time.Duration)
	for _, m := range element.FindAllStringSubmatch(g.host.Run("nft", "list", "set", "inet", "caddy_knock", service+"-4"), -1) {
		left, err := time.ParseDuration(strings.Replace(m[2], "d", "h", 1))
		if err != nil {
			g.Fatal(err)
		}
		if _, twice := found[m[1]]; twice {
			g.Errorf("%s is there twice", m[1])
		}
		found[m[1]] = left
	}
	return found
}

var element = regexp.MustCompile(`([0-9.]+) timeout \S+ expires ([0-9a-z]+)`)

// granted are the addresses of the live grants, and how long they last.
func (g *gate) granted() map[string]time.Duration {
	g.Helper()
	var answer struct {
		Grants []struct {
			Prefix    netip.Prefix
			ExpiresIn float64 `json:"expires_in_seconds"`
		}
	}
	_, body := g.call(http.MethodGet, "/knock/grants?limit=1000", "")
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		g.Fatal(err)
	}
	found := make(map[string]time.Duration)
	for _, grant := range answer.Grants {
		address := grant.Prefix.Addr().String()
		found[address] = max(found[address], time.Duration(grant.ExpiresIn*float64(time.Second)))
	}
	return found
}

// many makes requests for grants, several at a time.
func (g *gate) many(ctx context.Context, ask <-chan string) (done *sync.WaitGroup) {
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 8,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return g.host.Dial("tcp", g.admin, 5*time.Second)
		},
	}}
	done = new(sync.WaitGroup)
	for range 8 {
		done.Go(func() {
			defer client.CloseIdleConnections()
			for body := range ask {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.admin+"/knock/grants", strings.NewReader(body))
				if err != nil {
					g.Error(err)
					return
				}
				if resp, err := client.Do(req); err == nil { // Caddy may be dead
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			}
		})
	}
	return done
}

// TestKillCaddy kills Caddy at random under steady knocks: no window outlives its
// grant, live grants are adopted, no rule is there twice, and no stranger gets in.
func TestKillCaddy(t *testing.T) {
	g := newGate(t, "on_exit keep")
	rules := g.host.Run("nft", "-s", "-t", "list", "table", "inet", "caddy_knock")
	g.grant("192.0.2.2", "1h")
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan int)
	go func() {
		n := 0
		g.stranger.Watch(ctx, "tcp", "198.51.100.1:2222", time.Millisecond, func(state netlab.State) bool {
			if n++; state == netlab.Open {
				t.Error("a stranger got in")
			}
			return state != netlab.Open
		})
		watched <- n
	}()
	ask := make(chan string)
	knocks := g.many(ctx, ask)
	go func() {
		defer close(ask)
		for ctx.Err() == nil {
			select {
			case ask <- fmt.Sprintf(`{"client":"alice","service":"ssh","address":"10.0.0.%d","ttl":"%dms"}`, rand.N(200), 100+rand.N(3000)):
			case <-ctx.Done():
			}
		}
	}()
	for round := range 8 {
		time.Sleep(rand.N(200 * time.Millisecond)) // a random moment is the point
		g.caddy.Kill()
		for address, left := range g.windows() {
			if left > 3100*time.Millisecond && address != "192.0.2.2" {
				t.Errorf("round %d: %s is open for %v", round, address, left)
			}
		}
		g.start()
		if got := g.alice.ProbeFor("tcp", "192.0.2.1:2222", netlab.Open); got != netlab.Open {
			t.Fatalf("round %d: the grant that lives is %s", round, got)
		}
	}
	cancel()
	knocks.Wait()
	t.Logf("a stranger tried %d times", <-watched)
	g.lab.Eventually(30*time.Second, "only the long window is left", func() bool {
		left, granted := g.windows(), g.granted()
		return len(left) == 1 && left["192.0.2.2"] > 50*time.Minute && len(granted) == 1
	})
	if now := g.host.Run("nft", "-s", "-t", "list", "table", "inet", "caddy_knock"); now != rules {
		t.Errorf("rules at first:\n%s\nand in the end:\n%s", rules, now)
	}
}

// TestTenThousand: ten thousand windows are what was asked for, and are when they
// have been extended and when they are over.
func TestTenThousand(t *testing.T) {
	g := newGate(t, "")
	const n = 10_000
	open := func(ttl string) {
		ask := make(chan string)
		done := g.many(t.Context(), ask)
		for i := range n {
			ask <- fmt.Sprintf(`{"client":"alice","service":"ssh","address":"10.0.%d.%d","ttl":%q}`, i/250, i%250, ttl)
		}
		close(ask)
		done.Wait()
	}
	check := func(when string, least, most time.Duration) {
		t.Helper()
		got := g.windows()
		for i := range n {
			address := fmt.Sprintf("10.0.%d.%d", i/250, i%250)
			left, ok := got[address]
			if !ok || left < least || left > most {
				t.Fatalf("%s: %s is open for %v", when, address, left)
			}
			delete(got, address)
		}
		if len(got) != 0 {
			t.Errorf("%s: and besides: %v", when, got)
		}
	}
	open("30m")
	check("opened", 20*time.Minute, 30*time.Minute)
	open("2h")
	check("extended", 110*time.Minute, 2*time.Hour)
	if status, body := g.call(http.MethodDelete, "/knock/grants?all=true", ""); status != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`"revoked":%d`, n)) {
		t.Fatalf("revoking all: %d %s", status, body)
	}
	if got := g.windows(); len(got) != 0 {
		t.Errorf("after revoking all: %d windows", len(got))
	}
	open("2s")
	g.lab.Eventually(60*time.Second, "all are over", func() bool { return len(g.windows()) == 0 && len(g.granted()) == 0 })
}
