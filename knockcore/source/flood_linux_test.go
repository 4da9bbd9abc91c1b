// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// TestFloodForReal sends junk from spoofed addresses while a client knocks on.
func TestFloodForReal(t *testing.T) {
	// So many clients that a look at a datagram costs about a millisecond: the queue
	// overflows.
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "client c%d {\nsecret \"the secret of client number %d\"\n}\n", i, i)
	}
	for name, c := range map[string]struct {
		block    string
		overload bool
	}{
		"few clients":              {methodsBlock, false},
		"many clients, one worker": {many.String() + methodsBlock + " {\nqueue 64\nworkers 1\n}", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.block, gated)
			s.server.Sysctl("net.ipv4.conf.all.rp_filter", "0")
			s.server.Sysctl("net.ipv4.conf.eth1.rp_filter", "0")
			answers := watchAnswers(t, s.server)
			pid := s.caddy.Process.Pid

			client := s.dialUDP(s.client, netip.AddrPortFrom(server4, 62201))
			defer client.Close()
			cred := credential("alice", libknockSecret)
			knock := func() {
				d := wire.Datagram{Method: knockcore.MethodUDP, Port: 2222, Time: time.Now().UnixMilli()}
				b, err := d.Seal(cred)
				if err == nil {
					_, err = client.Write(b)
				}
				if err != nil {
					t.Error(err)
				}
			}
			s.expect("ok", 1, knock) // from now on the address is good
			flood(t, s, 30_000)      // whatever a flood needs is there now
			s.settle()
			before, memory := s.datagrams(), rss(t, pid)

			const junk = 300_000
			done := make(chan struct{})
			valid := 0
			go func() {
				defer close(done)
				flood(t, s, junk)
			}()
			granted := s.decided("ok")
			peak := memory
			for tick, running := time.NewTicker(10*time.Millisecond), true; running; {
				select {
				case <-done:
					running = false
				case <-tick.C:
					knock()
					valid++
					peak = max(peak, rss(t, pid))
				}
			}
			more := s.settle()
			after := s.datagrams()
			granted = s.decided("ok") - granted - more
			t.Logf("%d junk: %d read, %d lost in the socket, %d in the queue, %d limited; %d of %d knocks granted; memory %d KiB, %d at most, %d afterwards",
				junk, after.read-before.read, after.socket-before.socket, after.queue-before.queue, after.limited-before.limited, granted, valid, memory, peak, rss(t, pid))
			if got := after.read + after.socket - before.read - before.socket; got != junk+valid+more {
				t.Errorf("%d datagrams are accounted for, of %d", got, junk+valid+more)
			}
			if c.overload && after.queue == before.queue {
				t.Error("nothing was dropped, so nothing was tried")
			}
			if grown := peak - memory; grown > 32<<10 {
				t.Errorf("memory grew by %d KiB", grown)
			}
			// The kernel's buffer makes no difference between good and junk: where it
			// overflows, knocks are lost at the same rate. Behind it none may be.
			read, lost := after.read-before.read, after.socket-before.socket
			if fair := valid * read / (read + lost); granted < valid && lost == 0 || granted < fair*3/4 {
				t.Errorf("only %d of %d knocks were granted", granted, valid)
			}
			if !s.isIn(s.client, server4) || s.isIn(s.stranger, netip.MustParseAddr("198.51.100.1")) {
				t.Error("the wrong ones are in")
			}
			if sent := answers(); len(sent) > 0 {
				t.Errorf("the server sent %d packets: %v", len(sent), sent[:min(5, len(sent))])
			}
		})
	}
}

// fates are the counters of datagrams.
type fates struct{ read, socket, queue, limited int }

func (s *site) datagrams() fates {
	const dropped = "caddy_knock_datagrams_dropped_total"
	return fates{
		s.sum("caddy_knock_datagrams_total"), s.sum(dropped, `why="socket_full"`), s.sum(dropped, `why="queue_full"`), s.sum(dropped, `why="limited"`),
	}
}

// settle waits until everything that was sent has been decided on: no other
// decision is made between two knocks of its own, whose number it returns.
func (s *site) settle() (sent int) {
	s.t.Helper()
	c := s.dialUDP(s.client, netip.AddrPortFrom(server4, 62201))
	defer c.Close()
	for last := -1; ; {
		sent++
		ok := s.decided("ok")
		d := wire.Datagram{Method: knockcore.MethodUDP, Port: 2222, Time: time.Now().UnixMilli()}
		b, err := d.Seal(credential("alice", libknockSecret))
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := c.Write(b); err != nil {
			s.t.Fatal(err)
		}
		s.caddy.Await(s.t, "a knock to be granted", func() bool { return s.decided("ok") > ok })
		all := s.decided("")
		if all == last+1 {
			return sent
		}
		last = all
	}
}

// flood sends junk from addresses of 10.0.0.0/8, by the stranger's link, shaped
// like each kind of knock and like none.
func flood(t *testing.T, s *site, count int) {
	var fd int
	var err error
	s.stranger.Do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) })
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	shapes := junkShapes()
	to := &unix.SockaddrInet4{Addr: server4.As4()}
	packet := make([]byte, 28, 2048)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(packet[16:20], to.Addr[:])
	binary.BigEndian.PutUint16(packet[20:], 4444)
	binary.BigEndian.PutUint16(packet[22:], 62201)
	for i := range count {
		b := append(packet, shapes[i%len(shapes)]...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
		binary.BigEndian.PutUint32(b[12:], 10<<24|uint32(i)*2654435761>>8)
		if err := unix.Sendto(fd, b, 0, to); err != nil {
			t.Errorf("sending junk: %v", err)
			return
		}
	}
}

func junkShapes() [][]byte {
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	libknock := random(114)
	binary.BigEndian.PutUint16(libknock[24:], 114-28)
	libknock[26], libknock[27] = 2, 0
	psk, fwknopKeys := secret("the key of a stranger"), knockcore.FwknopKeys{Encryption: secret("a stranger's key"), HMAC: secret("a stranger's HMAC key")}
	pyknock, err := (&wire.Pyknock{Addr: stranger4, Time: wire.PyknockTime(time.Now())}).Seal(psk)
	if err != nil {
		panic(err)
	}
	fwknop, err := (&wire.Fwknop{
		User: "x", Type: 1, Allow: stranger4, Time: time.Now().Unix(), Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 2222, High: 2222}},
	}).Seal(fwknopKeys)
	if err != nil {
		panic(err)
	}
	return [][]byte{
		libknock, random(200), pyknock, fwknop,
		{},
		random(1400),
		[]byte("GET / HTTP/1.0\r\n\r\n"), []byte(base64.StdEncoding.EncodeToString(random(200))), bytes.Repeat([]byte{0}, 61),
	}
}

// rss is the resident memory of a process in KiB.
func rss(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
