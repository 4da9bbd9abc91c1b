// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-l4"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
	_ "github.com/caddy-knock/caddy-knock/l4knock"
)

const secret = "correct horse battery staple"

func credential(id, text string) *knockcore.Credential {
	s := knockcore.NewSecret([]byte(text))
	return &knockcore.Credential{Client: &knockcore.Client{ID: id}, Secret: s, MAC: knockcore.NewMAC(s.Bytes())}
}

func frame(t testing.TB, port int, change func(*wire.TCPFrame)) []byte {
	t.Helper()
	f := &wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: uint16(port), Time: time.Now().UnixMilli()}
	if change != nil {
		change(f)
	}
	b, err := f.Seal(credential("alice", secret))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// setup runs Caddy with the handler in front of an echo service and returns the
// port.
func setup(t *testing.T, options string) int {
	t.Helper()
	port := program.FreePort(t)
	apptest.Load(t, fmt.Sprintf(`{
	admin off
	knock {
		client alice {
			secret "%s"
			services echo
		}
		service echo tcp/%d
	}
	layer4 {
		127.0.0.1:%d {
			route {
				knock {
					service echo
					%s
					admit {
						proxy %s
					}
				}
				proxy %s
			}
		}
	}
}`, secret, port, port, options, apptest.Echo(t, "service\n"), apptest.Site(t, "cover")))
	return port
}

func dial(t testing.TB, port int) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// exchange sends bytes, half-closes and returns the whole answer.
func exchange(t testing.TB, port int, chunks ...[]byte) string {
	t.Helper()
	conn := dial(t, port)
	for _, c := range chunks {
		if _, err := conn.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.CloseWrite()
	answer, err := io.ReadAll(conn)
	// A web server that is the cover resets what it did not read of nonsense.
	nonsense := bytes.HasPrefix(answer, []byte("HTTP/1.1 400 ")) && errors.Is(err, syscall.ECONNRESET)
	if err != nil && !nonsense {
		t.Fatalf("after %q: %v", answer, err)
	}
	return string(answer)
}

func split(b []byte) [][]byte {
	var chunks [][]byte
	for i := range b {
		chunks = append(chunks, b[i:i+1])
	}
	return chunks
}

func TestAdmit(t *testing.T) {
	port := setup(t, "methods tcp-auth-envelope-v2 tcp-auth-frame-v1")
	v1 := func(f *wire.TCPFrame) { f.Method = knockcore.MethodFrameV1 }
	for name, chunks := range map[string][][]byte{
		"v2 and payload in one segment": {append(frame(t, port, nil), "payload"...)},
		"v1 and payload in one segment": {append(frame(t, port, v1), "payload"...)},
		"v2 byte by byte":               append(split(frame(t, port, nil)), []byte("payload")),
		"v1 byte by byte":               append(split(frame(t, port, v1)), []byte("payload")),
	} {
		t.Run(name, func(t *testing.T) {
			if got := exchange(t, port, chunks...); got != "service\npayload" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestStrangersGetCover(t *testing.T) {
	port := setup(t, "wait 2s")
	request := "GET / HTTP/1.0\r\n\r\n"
	good := frame(t, port, nil)
	if got := exchange(t, port, good); got != "service\n" {
		t.Fatalf("good frame: got %q", got)
	}
	tampered := frame(t, port, nil)
	tampered[len(tampered)-1] ^= 1
	for name, chunks := range map[string][][]byte{
		"http":             {[]byte(request)},
		"http byte-wise":   split([]byte(request)),
		"half-close":       {},
		"replay":           {good},
		"tampered":         {tampered},
		"truncated":        {frame(t, port, nil)[:100]},
		"v1 not enabled":   {frame(t, port, func(f *wire.TCPFrame) { f.Method = knockcore.MethodFrameV1 })},
		"wrong port":       {frame(t, port+1, nil)},
		"stale":            {frame(t, port, func(f *wire.TCPFrame) { f.Time -= 31000 })},
		"future":           {frame(t, port, func(f *wire.TCPFrame) { f.Time += 60_000 })}, // still, when its turn comes
		"garbage":          {bytes.Repeat([]byte("garbage\r\n\r\n"), 100)},
		"oversized":        {bytes.Repeat([]byte{0xaa}, 100_000)},
		"unknown and http": {[]byte(strings.Repeat("x", 40) + request)},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, port)
			for _, c := range chunks {
				_, _ = conn.Write(c)
			}
			_ = conn.CloseWrite()
			answer, _ := io.ReadAll(conn) // the cover may reset what it does not like
			if strings.Contains(string(answer), "service") {
				t.Fatalf("reached the service: %q", answer)
			}
			if strings.HasPrefix(name, "http") && !strings.HasSuffix(string(answer), "cover") {
				t.Errorf("cover did not answer: %q", answer)
			}
		})
	}
	t.Run("silence, then http", func(t *testing.T) {
		conn := dial(t, port)
		_, _ = conn.Write([]byte("GE"))
		apptest.Await(t, "the handler's time to be up", func() bool { return apptest.App(t).Pending().Len() == 0 })
		_, _ = conn.Write([]byte(request[2:]))
		if answer, _ := io.ReadAll(conn); !strings.HasSuffix(string(answer), "cover") {
			t.Errorf("got %q", answer)
		}
	})
}

func TestParallelReplay(t *testing.T) {
	port := setup(t, "")
	b := frame(t, port, nil)
	var wg sync.WaitGroup
	answers := make(chan string, 100)
	for range cap(answers) {
		wg.Go(func() {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				answers <- err.Error()
				return
			}
			defer conn.Close()
			_, _ = conn.Write(b)
			_ = conn.(*net.TCPConn).CloseWrite()
			answer, _ := io.ReadAll(conn)
			answers <- string(answer)
		})
	}
	wg.Wait()
	close(answers)
	won := 0
	for a := range answers {
		if strings.Contains(a, "service") {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d of 100 copies were admitted, expected exactly 1", won)
	}
}

// TestNoDowngrade: that a handler takes the older frame lets nobody use it whose
// client is pinned to the newer one.
func TestNoDowngrade(t *testing.T) {
	port := program.FreePort(t)
	apptest.Load(t, fmt.Sprintf(`{
	admin off
	knock {
		client alice {
			secret "%[1]s"
			services echo
			methods tcp-auth-envelope-v2
		}
		client bob {
			secret "%[1]s of bob"
			services echo
		}
		service echo tcp/%[2]d
	}
	layer4 {
		127.0.0.1:%[2]d {
			route {
				knock echo {
					methods tcp-auth-envelope-v2 tcp-auth-frame-v1
					admit {
						proxy %[3]s
					}
				}
				proxy %[4]s
			}
		}
	}
}
`, secret, port, apptest.Echo(t, "service\n"), apptest.Site(t, "cover")))
	for client, accepted := range map[string]map[knockcore.Method]bool{
		"alice": {knockcore.MethodEnvelopeV2: true, knockcore.MethodFrameV1: false},
		"bob":   {knockcore.MethodEnvelopeV2: true, knockcore.MethodFrameV1: true},
	} {
		key := secret
		if client == "bob" {
			key += " of bob"
		}
		for method, want := range accepted {
			b, err := (&wire.TCPFrame{Method: method, Port: uint16(port), Time: time.Now().UnixMilli()}).Seal(credential(client, key))
			if err != nil {
				t.Fatal(err)
			}
			conn := dial(t, port)
			_, _ = conn.Write(b)
			_ = conn.CloseWrite()
			answer, _ := io.ReadAll(conn) // the cover may reset what it does not like
			if got := strings.Contains(string(answer), "service"); got != want {
				t.Errorf("%s by %v: let in %v, want %v", client, method, got, want)
			}
		}
	}
}
