// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Many credentials are scanned by all processors, in blocks that each of them takes
// as it can. One HMAC takes about 0.2 µs, to wake a processor some microseconds.
const (
	scanBlock = 512
	scanAlone = 2 * scanBlock // up to here the caller scans alone
)

// scan is one look through all credentials. It is used again once nobody works on
// it any more.
type scan struct {
	creds []Credential
	msg   []byte
	hint  [HintLen]byte

	next    atomic.Int64   // block to take
	undone  sync.WaitGroup // blocks
	working atomic.Int64   // workers that did not leave, and the caller
	help    func()         // s.work, made once

	mu    sync.Mutex
	found []int
}

var scans sync.Pool // of *scan

// scanTogether is Keyring.Candidates with the help of other processors. A helper
// that comes late finds nothing to do, and nobody waits for it.
func scanTogether(creds []Credential, msg, hint []byte, dst []*Credential) []*Credential {
	s, _ := scans.Get().(*scan)
	if s == nil {
		s = new(scan)
		s.help = s.work
	}
	blocks := (len(creds) + scanBlock - 1) / scanBlock
	workers := min(runtime.GOMAXPROCS(0), blocks)
	s.creds, s.msg = creds, append(s.msg[:0], msg...)
	copy(s.hint[:], hint)
	s.found = s.found[:0]
	s.next.Store(0)
	s.undone.Add(blocks)
	s.working.Store(int64(workers) + 1)
	for range workers - 1 {
		go s.help()
	}
	s.work()
	s.undone.Wait()
	slices.Sort(s.found)
	for _, i := range s.found {
		dst = append(dst, &creds[i])
	}
	s.leave()
	return dst
}

// work scans blocks until none is left.
func (s *scan) work() {
	defer s.leave()
	scratch := GetMACScratch()
	defer scratch.Free()
	for {
		from := int(s.next.Add(1)-1) * scanBlock
		if from >= len(s.creds) {
			return
		}
		for i := from; i < min(from+scanBlock, len(s.creds)); i++ {
			if s.creds[i].MAC.begins(scratch, s.msg, s.hint[:]) {
				s.mu.Lock()
				s.found = append(s.found, i)
				s.mu.Unlock()
			}
		}
		s.undone.Done()
	}
}

// leave is the last that somebody does with the scan.
func (s *scan) leave() {
	if s.working.Add(-1) == 0 {
		s.creds = nil
		scans.Put(s)
	}
}
