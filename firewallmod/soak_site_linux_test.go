// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"context"
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
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// soak is a gate with four services, two clients and a stranger who never stops
// trying.
type soak struct {
	*gate
	rnd     *rand.Rand
	disk    disk
	clients []*soakClient
	window  int // of time, in seconds: what reloads change
	round   atomic.Int32

	unguarded atomic.Bool // somebody else took the rules away
	tries     [len(strangerTries)]atomic.Int64

	granted  map[string]auditLine // latest of each key
	accepted []sent               // what was accepted, to be thrown again
	life     life
	worst    struct {
		goroutines, files int
		past              time.Duration
	}
	gaps  []time.Duration
	took  map[string][]time.Duration
	count struct{ granted, streams, thrown, windows int }
}

// life is what is known of the process that runs.
type life struct {
	process           *program.Process
	goroutines, files int
	lines             int // of its log that were read
}

// The services: their windows last, are short, or open the way for a frame; the
// fourth has no window.
const (
	longPort, shortPort, bothPort, framePort = "2222", "3333", "5555", "4444"
	shortWindow                              = 2 * time.Second
	// bothWindow is long enough for throwing frames again, and so short that the
	// sessions of interrupted knocks don't add up to the most that a client may have.
	bothWindow = 2 * time.Minute
)

// strangerTries are the ports that a stranger must never get into.
var strangerTries = [...]string{longPort, shortPort, bothPort}

const strangerHost = "198.51.100.1"

func newSoak(t *testing.T, rnd *rand.Rand) *soak {
	t.Helper()
	s := &soak{gate: newHost(t, ""), rnd: rnd, window: 30, granted: make(map[string]auditLine), took: make(map[string][]time.Duration)}
	s.disk.mount(s)
	bob := s.lab.NS("bob")
	s.lab.Link(s.host, []string{"203.0.113.1/24"}, bob, []string{"203.0.113.2/24"})
	s.host.Echo("tcp", "0.0.0.0:"+shortPort) // newHost has the other
	s.host.Echo("tcp", "127.0.0.1:7")
	cover(s.host.Listen("127.0.0.1:8080"))
	s.clients = []*soakClient{newSoakClient(s, "alice", s.alice, "192.0.2.", "eth0"), newSoakClient(s, "bob", bob, "203.0.113.", "eth2")}
	s.write(s.caddyfile())
	s.start()
	s.awaitHealth()
	s.watchStranger()
	return s
}

// cover serves what strangers get, until the listener closes.
func cover(ln net.Listener) {
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, "cover\n")
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
}

func (s *soak) caddyfile() string {
	return fmt.Sprintf(`{
	admin %s
	persist_config off
	log {
		level INFO
	}
	knock {
		client alice {
			secret "a secret of alice, long enough"
			services all
		}
		client bob {
			secret "a secret of bob, long enough"
			services all
		}
		service long tcp/%s {
			open_for 4h
			firewall nftables
		}
		service short tcp/%s {
			open_for %s
			firewall nftables
		}
		service both tcp/%s {
			open_for %s
			require_session
			firewall nftables
		}
		service frame tcp/%s
		source udp :62201 {
			methods udp
		}
		firewall nftables {
			on_exit keep
		}
		store file %s
		time_window %ds
	}
	layer4 {
		:%[7]s {
			route {
				knock frame {
					admit {
						knock_relay 127.0.0.1:7
					}
				}
				proxy 127.0.0.1:8080
			}
		}
		:%[5]s {
			route {
				knock both {
					admit {
						knock_relay 127.0.0.1:7
					}
				}
				proxy 127.0.0.1:8080
			}
		}
	}
}
`, s.admin, longPort, shortPort, shortWindow, bothPort, bothWindow, framePort, s.disk.store(), s.window)
}

// badConfig is refused, while it is read or when it has half started.
func (s *soak) badConfig() string {
	if s.rnd.IntN(2) == 0 {
		return strings.Replace(s.caddyfile(), "knock_relay", "knock_delay", 1)
	}
	return strings.Replace(s.caddyfile(), "\n\t\t:"+framePort+" {", "\n\t\t192.0.2.250:1 {", 1)
}

// load has Caddy load a configuration.
func (s *soak) load(caddyfile string) (int, string) {
	s.Helper()
	client := http.Client{Transport: program.Persistent(&http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return s.host.Dial("tcp", s.admin, 5*time.Second)
	}})}
	resp, err := client.Post("http://"+s.admin+"/load", "text/caddyfile", strings.NewReader(caddyfile))
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func (s *soak) healthy() bool {
	status, _ := s.call(http.MethodGet, "/knock/health", "")
	return status == http.StatusOK
}

func (s *soak) awaitHealth() {
	s.Helper()
	s.caddy.Await(s.T, "health", s.healthy)
}

// heals counts the repairs of the process that runs.
func (s *soak) heals() int {
	return strings.Count(s.caddy.Log.String(), "the gate was broken and is mended")
}

// watchStranger tries each port from elsewhere until the test ends.
func (s *soak) watchStranger() {
	ctx, cancel := context.WithCancel(context.Background())
	var watchers sync.WaitGroup
	for i, port := range strangerTries {
		watchers.Go(func() {
			s.stranger.Watch(ctx, "tcp", strangerHost+":"+port, 10*time.Millisecond, func(state netlab.State) bool {
				s.tries[i].Add(1)
				if state == netlab.Open && !s.unguarded.Load() {
					s.Errorf("round %d: a stranger got into port %s", s.round.Load(), port)
				}
				return true
			})
		})
	}
	s.Cleanup(func() { cancel(); watchers.Wait() })
}

// guarded says that the rules stand again. Tries that began before are waited for.
func (s *soak) guarded() {
	s.Helper()
	for i := range s.tries {
		from := s.tries[i].Load()
		s.caddy.Await(s.T, "the stranger", func() bool { return s.tries[i].Load() >= from+2 })
	}
	s.unguarded.Store(false)
}

// disk is a small file system for the store.
type disk struct{ dir string }

func (d *disk) store() string { return filepath.Join(d.dir, "state") }

func (d *disk) mount(s *soak) {
	s.Helper()
	d.dir = filepath.Join(s.dir, "disk")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		s.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=32m,mode=0700", "tmpfs", d.dir).CombinedOutput(); err != nil {
		program.Missing(s.T, "no tmpfs: %s", out)
	}
	s.Cleanup(func() {
		if s.caddy != nil {
			s.caddy.Kill()
		}
		if out, err := exec.Command("umount", "-l", d.dir).CombinedOutput(); err != nil {
			s.Errorf("%v: %s", err, out)
		}
	})
}

// fill leaves no room on the disk.
func (d *disk) fill(s *soak) {
	s.Helper()
	f, err := os.Create(filepath.Join(d.dir, "fill"))
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; { // to the last page
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

func (d *disk) free(s *soak) {
	s.Helper()
	if err := os.Remove(filepath.Join(d.dir, "fill")); err != nil {
		s.Fatal(err)
	}
}
