// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestSoak disturbs a built Caddy at random, round after round, while real clients
// knock: it is killed, restarted, reloaded well and badly, its disk is full, its
// table is flushed or deleted. After each round
//
//   - every grant that was acknowledged is there until it ends, and its window too,
//   - no window outlives its grant,
//   - no frame that was accepted is accepted again,
//   - clients still get in, and no stranger ever did but while nothing stood there
//     that could have stopped him: between a flush and the repair,
//   - goroutines and file descriptors are as many as when Caddy was started.
//
// KNOCK_SOAK_ROUNDS says how many rounds, KNOCK_SOAK_SEED repeats the choices of a
// run.
func TestSoak(t *testing.T) {
	rounds := fromEnv(t, "KNOCK_SOAK_ROUNDS", 20)
	if testing.Short() {
		rounds = min(rounds, 5)
	}
	seed := fromEnv(t, "KNOCK_SOAK_SEED", int(time.Now().UnixNano()))
	t.Logf("%d rounds, KNOCK_SOAK_SEED=%d", rounds, seed)
	s := newSoak(t, rand.New(rand.NewPCG(uint64(seed), 0)))
	s.check("at first")
	for range rounds {
		s.round.Add(1)
		d := disturbances[s.rnd.IntN(len(disturbances))]
		before, after := s.moment(), s.moment()
		stop := make(chan struct{})
		var knocks sync.WaitGroup
		for _, c := range s.clients {
			knocks.Go(func() { c.knockUntil(stop) })
		}
		time.Sleep(before) // a random moment is the point
		begun := time.Now()
		d.do(s)
		s.awaitHealth()
		s.took[d.name] = append(s.took[d.name], time.Since(begun))
		time.Sleep(after)
		close(stop)
		knocks.Wait()
		s.check("after " + d.name)
	}
	s.report()
}

func (s *soak) moment() time.Duration {
	return time.Duration(s.rnd.Int64N(int64(200 * time.Millisecond)))
}

func fromEnv(t *testing.T, name string, standard int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, text)
	}
	return n
}

// disturbances are what may happen to a Caddy. Each leaves it running.
var disturbances = []struct {
	name string
	do   func(*soak)
}{
	{"kill", func(s *soak) {
		s.caddy.Kill()
		s.start()
	}},
	{"restart", func(s *soak) {
		s.call("POST", "/stop", "")
		<-s.caddy.Ended
		s.start()
	}},
	{"reload", func(s *soak) {
		s.window = 61 - s.window // seconds: 30 or 31
		if status, body := s.load(s.caddyfile()); status != 200 {
			s.Errorf("round %d: reload: %d %s", s.round.Load(), status, body)
		}
	}},
	{"failed reload", func(s *soak) {
		if status, _ := s.load(s.badConfig()); status == 200 {
			s.Errorf("round %d: a bad configuration was loaded", s.round.Load())
		}
	}},
	{"disk full", func(s *soak) {
		s.disk.fill(s)
		if s.rnd.IntN(2) == 0 && s.healthy() { // what is in memory only would be lost
			s.caddy.Kill()
			s.start()
		}
		time.Sleep(s.moment())
		s.disk.free(s)
	}},
	{"flush", func(s *soak) { s.broken("flush", "ruleset") }},
	{"delete table", func(s *soak) { s.broken("delete", "table", "inet", "caddy_knock") }},
	{"flush while dead", func(s *soak) {
		s.caddy.Kill()
		s.unguarded.Store(true)
		s.host.Run("nft", "flush", "ruleset")
		s.start()
		s.guarded()
	}},
}

// broken has somebody else break the table, and waits until it is mended.
func (s *soak) broken(how ...string) {
	s.Helper()
	mended := s.heals()
	s.unguarded.Store(true)
	begun := time.Now()
	s.host.Run(append([]string{"nft"}, how...)...)
	s.caddy.Await(s.T, "the repair of the table", func() bool { return s.heals() > mended })
	s.gaps = append(s.gaps, time.Since(begun))
	s.guarded()
}
