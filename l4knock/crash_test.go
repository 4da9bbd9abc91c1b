// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package l4knock_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

// crashSite is a built Caddy that is killed and started again, with a file
// store.
type crashSite struct {
	*testing.T
	dir, store     string
	port           int
	address, admin string
	echo, cover    string
	caddy          *program.Process

	mu       sync.Mutex
	accepted [][]byte // frames that let us in
	grants   []string // IDs of grants that were acknowledged
}

func newCrashSite(t *testing.T, store string) *crashSite {
	t.Helper()
	s := &crashSite{T: t, dir: t.TempDir(), store: store, port: program.FreePort(t), admin: program.FreeAddress(t)}
	if store == "" {
		s.store = filepath.Join(s.dir, "state")
	}
	s.address = fmt.Sprintf("127.0.0.1:%d", s.port)
	s.echo, s.cover = apptest.Echo(t, "service\n"), apptest.Site(t, "cover")
	return s
}

func (s *crashSite) start() {
	s.Helper()
	s.caddy = program.StartCaddy(s.T, s.dir, fmt.Sprintf(`{
	admin %s
	persist_config off
	log {
		level ERROR
	}
	knock {
		client alice {
			secret "%s"
			services echo
		}
		service echo tcp/%d
		store file %s
	}
	layer4 {
		%s {
			route {
				knock echo {
					admit {
						proxy %s
					}
				}
				proxy %s
			}
		}
	}
}`, s.admin, secret, s.port, s.store, s.address, s.echo, s.cover), s.address, s.admin)
}

// send sends a frame and reports whether it let us in.
func (s *crashSite) send(b []byte) (in bool) {
	conn, err := net.DialTimeout("tcp", s.address, 5*time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(b); err != nil {
		return false
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn)
	return strings.Contains(string(answer), "service")
}

// knockUntil knocks until stop is closed, and keeps what was accepted.
func (s *crashSite) knockUntil(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if b := frame(s, s.port, nil); s.send(b) {
			s.mu.Lock()
			s.accepted = append(s.accepted, b)
			s.mu.Unlock()
		}
	}
}

func (s *crashSite) acceptedSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted)
}

// grant makes a grant by hand; it counts once it was acknowledged.
func (s *crashSite) grant(n int) {
	body := fmt.Sprintf(`{"client":"alice","service":"echo","address":"10.%d.%d.%d","ttl":"2h"}`, n>>16&255, n>>8&255, n&255)
	resp, err := http.Post("http://"+s.admin+"/knock/grants", "application/json", strings.NewReader(body))
	if err != nil {
		return // killed meanwhile
	}
	defer resp.Body.Close()
	var g struct{ ID string }
	if json.NewDecoder(resp.Body).Decode(&g) == nil && resp.StatusCode == http.StatusOK {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.grants = append(s.grants, g.ID)
	}
}

// check replays the latest accepted frames, none of which may be accepted, and
// looks for the grants.
func (s *crashSite) check(when string, latest int) {
	s.Helper()
	for _, b := range s.accepted[max(0, len(s.accepted)-latest):] {
		if s.send(b) {
			s.Fatalf("%s: a replay was accepted", when)
		}
	}
	live := make(map[string]bool)
	for after := ""; ; {
		var resp *http.Response
		// The admin endpoint answers before the app runs.
		s.caddy.Await(s.T, "the list of grants", func() bool {
			var err error
			if resp, err = http.Get("http://" + s.admin + "/knock/grants?limit=10000&after=" + after); err != nil {
				return false
			}
			if resp.StatusCode != http.StatusOK {
				resp.Body.Close()
			}
			return resp.StatusCode == http.StatusOK
		})
		var page struct {
			Grants []struct{ ID string }
			Next   string
		}
		err := json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			s.Fatal(err)
		}
		for _, g := range page.Grants {
			live[g.ID] = true
		}
		if after = page.Next; after == "" {
			break
		}
	}
	for i, id := range s.grants {
		if !live[id] {
			s.Fatalf("%s: grant %d of %d was lost", when, i+1, len(s.grants))
		}
	}
}

// rounds is how often to kill: always in CI, less for a quick look.
func rounds(t *testing.T, full int) int {
	if testing.Short() || !program.RequireReal() {
		full /= 10
	}
	t.Logf("%d rounds", full)
	return full
}

func TestKillNine(t *testing.T) {
	s := newCrashSite(t, "")
	s.start()
	// A store that is killed while it is made refuses frames for a whole window.
	s.check("at first", 0)
	n := rounds(t, 200)
	for round := range n {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { s.knockUntil(stop) })
		}
		wg.Go(func() { s.grant(2 * round); s.grant(2*round + 1) })
		<-time.After(time.Duration(5+rand.IntN(60)) * time.Millisecond)
		s.caddy.Kill()
		close(stop)
		wg.Wait()
		s.start()
		s.check(fmt.Sprintf("after kill %d", round+1), 60)
	}
	s.check("at the end", len(s.accepted))
	t.Logf("%d frames accepted and replayed, %d grants kept", len(s.accepted), len(s.grants))
	if len(s.accepted) < n || len(s.grants) < n/2 {
		t.Error("too little happened")
	}
	// Clients still get in.
	if !s.send(frame(t, s.port, nil)) {
		t.Error("a fresh frame is refused")
	}
}

// TestDiskFull fills the disk under the store: clients get in, the health says
// so, and after a crash nothing is replayed.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		program.Missing(t, "mounting a tmpfs needs root")
	}
	mount := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", mount).CombinedOutput(); err != nil {
		program.Missing(t, "no tmpfs: %s", out)
	}
	s := newCrashSite(t, filepath.Join(mount, "state"))
	t.Cleanup(func() {
		s.caddy.Kill()
		_ = exec.Command("umount", mount).Run()
	})
	s.start()
	admit := func(when string) {
		t.Helper()
		b := frame(t, s.port, nil)
		if !s.send(b) {
			t.Fatalf("%s: a client is locked out", when)
		}
		s.accepted = append(s.accepted, b)
	}
	admit("at first")
	fill, err := os.Create(filepath.Join(mount, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); ; {
		if _, err := fill.Write(block); err != nil {
			break
		}
	}
	healthy := func() bool {
		resp, err := http.Get("http://" + s.admin + "/knock/health")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	// What the store has reserved lasts for some time.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { s.knockUntil(stop) })
	}
	for healthy() {
		select {
		case <-s.caddy.Ended:
			t.Fatal("it ended")
		case <-time.After(20 * time.Millisecond):
		}
		if s.acceptedSoFar() > 200_000 {
			t.Fatal("the store does not notice that the disk is full")
		}
	}
	close(stop)
	wg.Wait()
	admit("on the full disk, noticed")
	s.caddy.Kill()
	s.start()
	for _, b := range s.accepted[max(0, len(s.accepted)-200):] {
		if s.send(b) {
			t.Fatal("a replay was accepted after a crash with a full disk")
		}
	}
	if err := os.Remove(fill.Name()); err != nil {
		t.Fatal(err)
	}
	s.caddy.Await(t, "the store to be well again", healthy)
}
