// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod_test

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"
)

const leakSlack = 8

var goroutines = regexp.MustCompile(`goroutine profile: total (\d+)`)

// checkLeaks compares goroutines and files with those of the process's first calm.
func (s *soak) checkLeaks(when string) {
	s.Helper()
	measure := func() (running, files int) {
		_, body := s.call(http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
		if m := goroutines.FindStringSubmatch(body); m != nil {
			running, _ = strconv.Atoi(m[1])
		}
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.caddy.Process.Pid))
		if err != nil || running == 0 {
			s.Fatalf("%s: measuring: %v %.200s", when, err, body)
		}
		return running, len(list)
	}
	if s.life.goroutines == 0 {
		// What streams leave goes within moments.
		least, most := measure()
		for range 20 {
			time.Sleep(5 * time.Millisecond)
			n, files := measure()
			least, most = min(least, n), min(most, files)
		}
		s.life.goroutines, s.life.files = least, most
		return
	}
	var running, files int
	defer func() {
		if s.Failed() {
			s.Logf("%s: %d goroutines and %d files, at first %d and %d", when, running, files, s.life.goroutines, s.life.files)
		}
	}()
	s.caddy.Await(s.T, "goroutines and files to go", func() bool {
		running, files = measure()
		return running <= s.life.goroutines+leakSlack && files <= s.life.files+leakSlack
	})
	s.worst.goroutines = max(s.worst.goroutines, running-s.life.goroutines)
	s.worst.files = max(s.worst.files, files-s.life.files)
}

// report tells what happened, and fails if that was too little.
func (s *soak) report() {
	s.Helper()
	knocks, failed, tries := 0, 0, int64(0)
	for _, c := range s.clients {
		knocks += c.knocks
		failed += c.failed
	}
	for i := range s.tries {
		tries += s.tries[i].Load()
	}
	s.Logf("%d runs of the client, %d of them in vain; %d grants and %d streams; %d frames accepted, %d thrown again; %d windows compared; a stranger tried %d times",
		knocks, failed, s.count.granted, s.count.streams, len(s.accepted), s.count.thrown, s.count.windows, tries)
	s.Logf("at most %d more goroutines and %d more files than at first; a window ended at most %v after its grant", s.worst.goroutines, s.worst.files, s.worst.past)
	for name, took := range s.took {
		slices.Sort(took)
		s.Logf("%-16s %3d times, well again after %v, at most %v", name, len(took), took[len(took)/2], took[len(took)-1])
	}
	if slices.Sort(s.gaps); len(s.gaps) > 0 {
		s.Logf("without rules for %v, at most %v, until it was seen to be mended", s.gaps[len(s.gaps)/2], s.gaps[len(s.gaps)-1])
	}
	rounds := int(s.round.Load())
	if s.count.granted < 2*rounds || s.count.streams < 2*rounds || s.count.thrown < 10*rounds {
		s.Error("too little happened")
	}
}
