// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"golang.org/x/sys/unix"
)

// TestIdleRelays: relays that wait hold two descriptors each, their sockets.
func TestIdleRelays(t *testing.T) {
	emptyPool()
	const relays = 1000
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	rigs := make([]*rig, relays)
	for i := range rigs {
		rigs[i] = start(t, "tcp", "tcp", &Options{})
	}
	// Each has moved enough to splice, and is back to waiting.
	var wg sync.WaitGroup
	for i, g := range rigs {
		for _, way := range [][2]half{{g.client, g.server}, {g.server, g.client}} {
			const size = 256 << 10
			go func() { _, _ = io.CopyN(way[0], zeros{}, size) }()
			if _, err := io.CopyN(io.Discard, way[1], size); err != nil {
				t.Fatalf("relay %d: %v", i, err)
			}
		}
	}
	wg.Wait()
	program.Await(t, "all pipes to come back", func() bool { return lent() == 0 })
	for i, g := range rigs {
		if s := g.Stats(); s.Spliced == 0 {
			t.Fatalf("relay %d spliced nothing", i)
		}
	}
	program.Await(t, "all helpers to end", func() bool { return runtime.NumGoroutine()-goroutines <= 2*relays })
	const ours = 4 * relays // client, down, up, server
	if extra := descriptors(t) - before - ours; extra > 2*2*maxIdlePipes {
		t.Errorf("%d descriptors beside the sockets of %d idle relays", extra, relays)
	} else {
		t.Logf("%d descriptors beside the sockets of %d idle relays, all of them in the pool", extra, relays)
	}
}

// TestDescriptorLeak runs 2,000 relays to all sorts of ends.
func TestDescriptorLeak(t *testing.T) {
	emptyPool()
	before := descriptors(t)
	const workers, rounds, size = 20, 100, 512 << 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				n := w*rounds + i
				kind := []string{"tcp", "unix", "tcp", "tcp"}
				if n%10 == 0 {
					kind = []string{"tls", "tcp"} // costly
				}
				g := newRig(t, kind[n%len(kind)], kind[n/4%len(kind)], "head", &Options{})
				go func() { g.done <- g.Run(t.Context()) }()
				for _, c := range []half{g.client, g.server} {
					go func() { _, _ = io.CopyN(c, zeros{}, size) }()
				}
				for _, c := range []half{g.client, g.server} {
					_, _ = io.CopyN(io.Discard, c, int64(n)*size/(workers*rounds))
				}
				switch n % 4 {
				case 0:
					g.Cut(nil)
				case 1:
					bare(g.client).Close()
					go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{g.server}); g.server.Close() }()
				case 2:
					bare(g.server).Close()
					go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{g.client}); g.client.Close() }()
				case 3:
					bare(g.client).Close()
					bare(g.server).Close()
				}
				g.wait(t)
				bare(g.client).Close()
				bare(g.server).Close()
			}
		})
	}
	wg.Wait()
	if lent() != 0 {
		t.Errorf("%d pipes are lent", lent())
	}
	emptyPool()
	// What two close at once is closed by one of them, and the other does not wait.
	program.Await(t, "all descriptors to be closed", func() bool { return descriptors(t) <= before })
}

// TestSlowReader: what a relay takes in while its peer takes nothing is bounded,
// and all of it arrives.
func TestSlowReader(t *testing.T) {
	for _, up := range []string{"tcp", "unix", "tls"} {
		t.Run(up, func(t *testing.T) {
			g := newRig(t, "tcp", up, "", &Options{})
			const socketBuffer = 128 << 10
			g.setBuffers(t, socketBuffer)
			g.run(t, t.Context())
			var sent int64
			for range 5 { // stall, drain, stall again
				n := block(t, g.client)
				if limit := int64(4*2*socketBuffer + maxSplice); n > limit {
					t.Errorf("%d bytes went into a relay that delivers none, want at most %d", n, limit)
				}
				sent += n
				if _, err := io.CopyN(io.Discard, g.server, n); err != nil {
					t.Fatal(err)
				}
			}
			mustWrite(t, g.client, "the end")
			mustRead(t, g.server, "the end")
			g.client.Close()
			mustEnd(t, g.server)
			g.server.Close()
			if s := g.wait(t); s.Up != sent+7 {
				t.Errorf("stats %+v, want %d bytes up", s, sent+7)
			}
		})
	}
}

// TestManySlowReaders: a pipe for each of them would be more than there are.
func TestManySlowReaders(t *testing.T) {
	var wg sync.WaitGroup
	for range 2 * maxPipes {
		wg.Go(func() {
			g := newRig(t, "tcp", "tcp", "", &Options{})
			g.setBuffers(t, 64<<10) // or the kernel runs short of memory for sockets
			g.run(t, t.Context())
			n := block(t, g.client)
			if err := g.client.CloseWrite(); err != nil {
				t.Error(err)
			}
			if got, err := io.Copy(io.Discard, g.server); got != n || err != nil {
				t.Errorf("%d bytes of %d, %v", got, n, err)
			}
		})
	}
	wg.Wait()
}

// TestUrgent: TCP's urgent data, which splice doesn't get past, holds up nothing.
// Urgent bytes themselves are not relayed.
func TestUrgent(t *testing.T) {
	chunk := bytes.Repeat([]byte("x"), 100<<10)
	for _, end := range []bool{false, true} {
		g := start(t, "tcp", "tcp", &Options{})
		raw, err := g.client.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		const rounds = 30
		want := int64(rounds * 2 * len(chunk))
		received := make(chan int64, 1)
		go func() {
			n, _ := io.CopyN(io.Discard, g.server, want)
			received <- n
		}()
		for range rounds {
			mustWrite(t, g.client, string(chunk))
			var n int
			if err := raw.Write(func(fd uintptr) bool {
				n, err = unix.SendmsgN(int(fd), []byte("!"), nil, nil, unix.MSG_OOB)
				return err != unix.EAGAIN
			}); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			mustWrite(t, g.client, string(chunk))
		}
		if end {
			g.client.Close()
		}
		if n := <-received; n != want {
			t.Fatalf("%d bytes of %d arrived", n, want)
		}
		if end {
			// An urgent byte that was overtaken by the next one is none any more.
			if n, err := io.Copy(io.Discard, g.server); n > rounds || err != nil {
				t.Fatalf("%d bytes too many, %v", n, err)
			}
		}
	}
}

// TestMultipath: a client that speaks MPTCP gets what TCP gets.
func TestMultipath(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var d net.Dialer
	d.SetMultipathTCP(true)
	client, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	down, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := down.(*net.TCPConn).MultipathTCP(); !ok || err != nil {
		t.Skipf("this system has no MPTCP (%v)", err)
	}
	g := &rig{done: make(chan Stats, 1), client: client.(half)}
	var up half
	up, g.server = tcpPair(t)
	g.Relay = New(down, nil, up, &Options{})
	g.run(t, t.Context())
	exchange(t, g, 4<<20)
	t.Logf("%+v", g.Stats())
}
