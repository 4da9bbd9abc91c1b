// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package l4knock_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
)

func TestMain(m *testing.M) { program.Main(m) }

// TestTenThousandStrangers holds as many half-open streams against the built
// Caddy as the file limit lets this process open, and comes as a client
// meanwhile and afterwards.
func TestTenThousandStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	strangers := min(10_000, int(limit.Cur)-1_000)
	if strangers < 1_000 {
		program.Missing(t, "the file limit is %d", limit.Cur)
	}
	port := program.FreePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p := program.StartCaddy(t, t.TempDir(), fmt.Sprintf(`{
	admin off
	log {
		level ERROR
	}
	knock {
		client alice {
			secret "%s"
			services echo
		}
		service echo tcp/%d
	}
	layer4 {
		%s {
			route {
				knock {
					admit {
						proxy %s
					}
				}
				proxy %s
			}
		}
	}
}`, secret, port, address, apptest.Echo(t, "service\n"), apptest.Site(t, "cover")), address)
	before := rss(t, p.Cmd.Process.Pid)

	conns := make([]net.Conn, 0, strangers)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	serve := func(when string) {
		t.Helper()
		if got := exchange(t, port, append(frame(t, port, nil), "hello"...)); got != "service\nhello" {
			t.Fatalf("%s, the client got %q", when, got)
		}
	}
	for i := range strangers {
		conn, err := net.DialTimeout("tcp", address, 20*time.Second)
		if err != nil {
			t.Fatalf("stranger %d: %v", i, err)
		}
		conns = append(conns, conn)
		if i%2 == 0 { // half of them begin something
			_, _ = conn.Write([]byte("x"))
		}
		if i%1_000 == 999 {
			serve(fmt.Sprintf("beside %d strangers", i+1))
		}
	}
	grown := rss(t, p.Cmd.Process.Pid) - before
	t.Logf("%d half-open strangers: %d MiB more, %d descriptors", strangers, grown>>20, descriptors(t, p.Cmd.Process.Pid))
	if grown > 400<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { serve("in the middle of it") })
	}
	wg.Wait()
	for _, c := range conns {
		_ = c.Close()
	}
	conns = nil
	serve("afterwards")
	p.Await(t, "the cover to answer a stranger again", func() bool {
		conn := dial(t, port)
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		return strings.HasSuffix(string(answer), "cover")
	})
}

// TestFiveThousandRelays holds relays of the built Caddy, moves bytes through each,
// and counts what they cost: two descriptors each, and no pipe while idle.
func TestFiveThousandRelays(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	relays := min(5_000, int(limit.Cur)/2-1_000) // two ends each are in this process
	if relays < 1_000 {
		program.Missing(t, "the file limit is %d", limit.Cur)
	}
	port := program.FreePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p := program.StartCaddy(t, t.TempDir(), fmt.Sprintf(`{
	admin off
	log {
		level ERROR
	}
	knock {
		client alice {
			secret "%s"
			services echo
		}
		service echo tcp/%d
	}
	layer4 {
		%s {
			route {
				knock {
					admit {
						knock_relay %s {
							max_per_client %d
						}
					}
				}
			}
		}
	}
}`, secret, port, address, apptest.Echo(t, "service\n"), relays), address)
	pid := p.Cmd.Process.Pid
	before, fds := rss(t, pid), descriptors(t, pid)
	conns := make([]*net.TCPConn, 0, relays)
	for range relays {
		conns = append(conns, enter(t, port, "alice"))
	}
	word := []byte("hello")
	for i, c := range conns {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(word); err != nil {
			t.Fatalf("relay %d: %v", i, err)
		}
		if _, err := io.ReadFull(c, make([]byte, len(word))); err != nil {
			t.Fatalf("relay %d: %v", i, err)
		}
	}
	grown, more := rss(t, pid)-before, descriptors(t, pid)-fds
	t.Logf("%d idle relays: %.1f KiB of memory and %.2f descriptors each", relays, float64(grown)/1024/float64(relays), float64(more)/float64(relays))
	if more > 2*relays+200 {
		t.Errorf("%d descriptors for %d relays", more, relays)
	}
}

func rss(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
