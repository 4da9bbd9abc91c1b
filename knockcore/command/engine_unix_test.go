// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package command

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// rig is an engine whose commands write what they do into a file.
type rig struct {
	*testing.T
	*Engine
	dir string

	mu     sync.Mutex
	events []Event
}

// newRig makes one; it goes on with the journal of an earlier one of the same
// folder. The scripts see what they are run for as $1, the address as $2.
func newRig(t *testing.T, dir, open, closes string, async bool) *rig {
	t.Helper()
	r := &rig{T: t, dir: dir}
	script := func(text string) Commands {
		tm, err := Parse([]string{"/bin/sh", "-c", "echo $1 $2 >> " + dir + "/log; " + text, "sh", "{knock.action}", "{knock.address}"}, true)
		if err != nil {
			t.Fatal(err)
		}
		return Commands{[]*Template{tm}, []*Template{tm}}
	}
	r.Engine = New(Config{
		Open: script(open), Close: script(closes), Journal: dir + "/journal", Async: async, Runner: NewRunner(time.Minute, 4),
		Observe: func(ev Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, ev)
		},
	})
	return r
}

func (r *rig) setup() *rig {
	r.Helper()
	if err := r.Setup(r.Context(), []*knockcore.Service{ssh}); err != nil {
		r.Fatal(err)
	}
	return r
}

func (r *rig) log() string {
	b, _ := os.ReadFile(filepath.Join(r.dir, "log"))
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
}

func (r *rig) await(want string) {
	r.Helper()
	for deadline := time.Now().Add(30 * time.Second); r.log() != want; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("ran %q, expected %q", r.log(), want)
		}
	}
}

func sshWindow(addr string, length time.Duration) knockcore.Window {
	return knockcore.Window{Prefix: knockcore.AddrPrefix(netip.MustParseAddr(addr)), Service: "ssh", Expires: time.Now().Add(length), Client: "alice"}
}

func TestRenewedWindowMoves(t *testing.T) {
	for _, async := range []bool{false, true} {
		r := newRig(t, t.TempDir(), "", "", async).setup()
		for range 3 {
			if err := r.Open(t.Context(), sshWindow("192.0.2.7", time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		r.await("open 192.0.2.7")
		if err := r.Open(t.Context(), sshWindow("192.0.2.7", 50*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		r.await("open 192.0.2.7, close 192.0.2.7")
		if list, _ := r.List(t.Context()); len(list) > 1 {
			t.Error("still listed")
		}
	}
}

func TestFailingCommands(t *testing.T) {
	r := newRig(t, t.TempDir(), "echo nonsense; exit 1", "", false).setup()
	if err := r.Open(t.Context(), sshWindow("192.0.2.7", time.Hour)); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("open: %v", err)
	}
	r.await("open 192.0.2.7, close 192.0.2.7") // what is half done is undone
	if list, _ := r.List(t.Context()); len(list) != 0 {
		t.Errorf("listed: %v", list)
	}
	r.mu.Lock() // the one of the close may be on its way
	first := r.events[0]
	r.mu.Unlock()
	if first.Output != "nonsense" || first.Err == nil || first.Program != "/bin/sh" {
		t.Errorf("told: %+v", first)
	}

	// In the background it is open all the same, and says so.
	r = newRig(t, t.TempDir(), "exit 1", "", true).setup()
	w := sshWindow("192.0.2.7", time.Hour)
	if err := r.Open(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	program.Await(t, "the trouble", func() bool { return r.Trouble(w) != nil })
	if err := r.Close(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	r.await("open 192.0.2.7, close 192.0.2.7")
	program.Await(t, "the end of it", func() bool { // then it is done with closeRetries
		list, err := r.List(t.Context())
		return err == nil && len(list) == 0
	})

	// A close that fails is tried again.
	closeRetries = []time.Duration{time.Millisecond, time.Millisecond}
	r = newRig(t, t.TempDir(), "", "exit 1", false).setup()
	if err := r.Open(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(t.Context(), w); err == nil {
		t.Error("a close that failed is none")
	}
	r.await("open 192.0.2.7, close 192.0.2.7, close 192.0.2.7, close 192.0.2.7")
}

// TestJournal goes on where a process was killed.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, dir, "", "", false).setup()
	if err := r.Open(t.Context(), sshWindow("192.0.2.7", time.Hour), sshWindow("2001:db8::7", 3*time.Second), sshWindow("192.0.2.8", time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(t.Context(), sshWindow("192.0.2.8", 0)); err != nil {
		t.Fatal(err)
	}
	r.Engine.mu.Lock() // this one does nothing any more: its timers and commands are dead
	for _, w := range r.windows {
		w.timer.Stop()
	}
	r.Engine.mu.Unlock()
	b, err := os.ReadFile(dir + "/journal")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/journal", append(b, []byte(`{"prefix":"torn`)...), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(dir + "/log")

	// The commands of the next configuration are others; what is open closes by
	// those that belong to it.
	next := newRig(t, dir, "", "touch "+dir+"/wrong", false).setup()
	next.await("close 2001:db8::7")
	if err := next.Open(t.Context(), sshWindow("192.0.2.7", 50*time.Millisecond)); err != nil { // as a restored grant does
		t.Fatal(err)
	}
	next.await("close 2001:db8::7, close 192.0.2.7")
	if _, err := os.Stat(dir + "/wrong"); err == nil {
		t.Error("the wrong command closed")
	}
	if err := next.Stop(t.Context(), knockcore.ExitClose); err != nil {
		t.Fatal(err)
	}
}

// TestJournalAfterReboot closes once what lasted and opens anew.
func TestJournalAfterReboot(t *testing.T) {
	dir := t.TempDir()
	journal := `{"boot":"another"}
{"prefix":"192.0.2.7/32","service":"ssh","client":"alice","expires":"2999-01-01T00:00:00Z","close":[["/bin/sh","-c","echo old >> ` + dir + `/log; exit 1"]]}
`
	if err := os.WriteFile(dir+"/journal", []byte(journal), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, dir, "", "", false).setup()
	r.await("old")
	if err := r.Open(t.Context(), sshWindow("192.0.2.7", time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.await("old, open 192.0.2.7")
}

func TestJournalIsRewritten(t *testing.T) {
	r := newRig(t, t.TempDir(), "", "", false).setup()
	for range 2100 {
		if err := r.Open(t.Context(), sshWindow("192.0.2.7", time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := os.ReadFile(r.dir + "/journal"); strings.Count(string(b), "\n") > 1100 {
		t.Errorf("the journal has %d lines", strings.Count(string(b), "\n"))
	}
}

func TestTooManyWindows(t *testing.T) {
	r := newRig(t, t.TempDir(), "", "", true)
	r.cfg.MaxWindows = 2
	r.setup()
	for i, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		if err := r.Open(t.Context(), sshWindow(addr, time.Hour)); (err == nil) != (i < 2) {
			t.Errorf("window %d: %v", i, err)
		}
	}
}
