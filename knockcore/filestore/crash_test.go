// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// childDir makes the test binary a child that uses the store in this directory
// until it is killed, and says on its output what was acknowledged.
const childDir = "KNOCK_FILESTORE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		runChild(dir, os.Getenv("KNOCK_FILESTORE_FROM"))
		return
	}
	os.Exit(m.Run())
}

// childOptions have small segments, so that there is a lot of rotation.
func childOptions(dir string) Options { return Options{Dir: dir, segment: 16 << 10, Window: time.Hour} }

func runChild(dir, first string) {
	from, _ := strconv.Atoi(first)
	s, err := Open(childOptions(dir))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Printf(format+"\n", args...) // one write(2) each
	}
	say("ready")
	ctx := context.Background()
	for worker := range 4 {
		go func() {
			for i := from + worker; ; i += 4 {
				n := newNonce(i, fmt.Sprint("client", worker), time.Now())
				if err := s.Spend(ctx, n, time.Now(), time.Hour); err != nil {
					say("error %v", err)
				}
				say("spent %x %d %s", n.Key, n.Time.UnixMilli(), n.Client)
				g := newGrant(i, time.Hour, time.Now())
				if i%8 == worker {
					if err := s.SaveGrant(ctx, g); err != nil {
						say("error %v", err)
					}
					say("saved %v", g.ID)
					b := knockcore.Ban{Prefix: g.Prefix, Made: g.Made, Until: g.Expires, Strikes: 1}
					if err := s.SaveBan(ctx, b); err != nil {
						say("error %v", err)
					}
					say("banned %v", b.Prefix)
				}
				if i%16 == worker {
					say("deleting %v", g.ID)
					if err := s.DeleteGrant(ctx, g.ID); err != nil {
						say("error %v", err)
					}
					say("deleted %v", g.ID)
				}
			}
		}()
	}
	select {}
}

// acked is what a child said.
type acked struct {
	spent                            []knockcore.Nonce
	saved, deleting, deleted, banned map[string]bool
	next                             int
}

// life runs a child for a while and kills it with SIGKILL.
func (a *acked) life(t *testing.T, dir string, length time.Duration) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprint("KNOCK_FILESTORE_FROM=", a.next))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	time.AfterFunc(length, func() { _ = cmd.Process.Kill() })
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return // also of a line that is not whole: it was not said
		}
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(line)
		switch f[0] {
		case "spent":
			key, _ := hex.DecodeString(f[1])
			ms, _ := strconv.ParseInt(f[2], 10, 64)
			a.spent = append(a.spent, knockcore.Nonce{Key: knockcore.ReplayKey(key), Client: f[3], Time: time.UnixMilli(ms)})
			a.next += 4
		case "saved":
			a.saved[f[1]] = true
		case "deleting":
			a.deleting[f[1]] = true
		case "deleted":
			a.deleted[f[1]] = true
		case "banned":
			a.banned[f[1]] = true
		default:
			t.Fatal(line)
		}
	}
}

// check wants everything that was acknowledged to be true.
func (a *acked) check(t *testing.T, s *Store) (replays, stale int) {
	t.Helper()
	for _, n := range a.spent {
		switch err := s.Spend(context.Background(), n, n.Time, time.Hour); knockcore.ReasonOf(err) {
		case knockcore.ReasonReplay:
			replays++
		case knockcore.ReasonStale:
			stale++
		default:
			t.Fatalf("frame of %v is accepted again: %v", n.Time, err)
		}
	}
	grants, err := s.Grants(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, g := range grants {
		have[g.ID.String()] = true
		if left := time.Until(g.Expires); left > time.Hour || left < 55*time.Minute {
			t.Fatalf("a grant ends in %v", left)
		}
	}
	for id := range a.saved {
		if !have[id] && !a.deleting[id] {
			t.Fatalf("grant %v is lost", id)
		}
	}
	for id := range a.deleted {
		if have[id] {
			t.Fatalf("grant %v is back", id)
		}
	}
	bans, err := s.Bans(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for prefix := range a.banned {
		if !slices.ContainsFunc(bans, func(b knockcore.Ban) bool { return b.Prefix == netip.MustParsePrefix(prefix) }) {
			t.Fatalf("ban of %v is lost", prefix)
		}
	}
	return replays, stale
}

func newAcked() *acked {
	return &acked{saved: map[string]bool{}, deleting: map[string]bool{}, deleted: map[string]bool{}, banned: map[string]bool{}}
}

// TestKill9 kills a real process at random moments, 50 times, and wants every
// frame that it acknowledged refused, as a replay since the machine stays up, and
// every grant and ban present.
func TestKill9(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	dir := filepath.Join(t.TempDir(), "state")
	begin := time.Now()
	total, lost := 0, 0
	for round := range rounds {
		if round%10 == 0 { // a new directory now and then, to begin at the beginning
			dir = filepath.Join(t.TempDir(), "state")
		}
		a := newAcked()
		a.next = round << 20
		lives := 1 + r.IntN(2)
		for range lives {
			a.life(t, dir, time.Duration(r.IntN(60_000))*time.Microsecond)
			a.next = a.next + 1<<18
		}
		o := childOptions(dir)
		o.Log = func(level, msg string, err error) {
			if level != "info" {
				t.Log(round, level, msg, err)
				lost++
			}
		}
		s := mustOpen(t, o)
		replays, stale := a.check(t, s)
		total += replays
		if stale > 0 && lost == 0 {
			t.Fatalf("%d frames are stale, without a word", stale)
		}
		if round%3 == 0 {
			s.kill()
		} else {
			mustClose(t, s)
		}
		if time.Since(begin) > 90*time.Second {
			t.Logf("ending after %d rounds", round+1)
			break
		}
	}
	t.Logf("%d frames; in %d rounds the last record was torn", total, lost)
	if total == 0 {
		t.Fatal("no frame was acknowledged")
	}
}

// TestKill9Damaged does more than killing: it truncates the journal, or plays a
// reboot.
func TestKill9Damaged(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for round := range rounds {
		dir := filepath.Join(t.TempDir(), "state")
		a := newAcked()
		a.life(t, dir, time.Duration(10_000+r.IntN(30_000))*time.Microsecond)
		o := childOptions(dir)
		o.Window = window
		if round%2 == 0 {
			o.Boot = func() (string, time.Duration) { return "another boot", time.Minute }
		} else {
			var names []string // of files that have something to lose
			sizes := make(map[string]int64)
			for name := range files(t, dir) {
				path := filepath.Join(dir, name)
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if generation(name) != 0 && info.Size() > 0 {
					names, sizes[path] = append(names, path), info.Size()
				}
			}
			name := names[r.IntN(len(names))]
			if err := os.Truncate(name, r.Int64N(sizes[name])); err != nil {
				t.Fatal(err)
			}
		}
		s := mustOpen(t, o)
		wantRefused(t, s, a.spent)
		wantFresh(t, s, 1, lockout)
		s.kill()
	}
}

// TestLocked opens a directory twice, from one process and from two.
func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := mustOpen(t, childOptions(dir))
	_, err := Open(childOptions(dir))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", os.Getpid())) {
		t.Fatalf("opening twice gives %v", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), fmt.Sprintf("%s: it is in use by process %d", dir, os.Getpid())) {
		t.Fatalf("another process: %v, %s", err, out)
	}
	if err := s.Health(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, childOptions(dir)))
}
