// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"os"
	"sync"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// snapshotWriter writes records to a snapshot.
type snapshotWriter struct {
	s     *Store
	f     *os.File
	w     *bufio.Writer
	buf   []byte
	crc   uint32
	count uint64
	size  int64
	// unsynced is how much was written since the last sync.
	unsynced int
}

// syncPortion is how much of a snapshot is written between syncs, so that the
// disk never has much to do at once: others wait for it too.
const syncPortion = 4 << 20

// add writes a record.
func (w *snapshotWriter) add(encode func([]byte) []byte) error {
	w.buf = encode(append(w.buf[:0], make([]byte, frameLen)...))
	w.crc = sealFrame(w.buf, w.crc)
	w.count++
	return w.write(w.buf)
}

func (w *snapshotWriter) write(b []byte) error {
	n, err := w.w.Write(b)
	w.size += int64(n)
	if w.unsynced += n; err != nil || w.unsynced < syncPortion {
		return err
	}
	w.unsynced = 0
	if err := w.w.Flush(); err != nil {
		return err
	}
	return w.s.datasync(w.f)
}

// Write hands on what the buffer flushes.
func (w *snapshotWriter) Write(b []byte) (int, error) {
	if err := w.s.opts.fault("snapshot write"); err != nil {
		return 0, err
	}
	return w.f.Write(b)
}

// writeSnapshot writes everything that is known to a snapshot.
func (s *Store) writeSnapshot(gen uint64) (size int64, err error) {
	err = s.replaceFile(snapshotName(gen), func(f *os.File) error {
		w := &snapshotWriter{s: s, f: f, buf: make([]byte, 0, maxRecord)}
		w.w = bufio.NewWriterSize(w, 256<<10)
		head := header{gen: gen, boot: s.clock.id}
		b := head.encode(snapshotMagic)
		w.crc = le.Uint32(b[headerLen-4:])
		err := w.write(b)
		if err == nil {
			err = s.snapshot(w)
		}
		if err == nil {
			count := w.count
			err = w.add(func(b []byte) []byte { return appendSeal(b, count, 0) })
		}
		size = w.size
		if err != nil {
			return err
		}
		return w.w.Flush()
	})
	return size, err
}

func (s *Store) snapshot(w *snapshotWriter) (err error) {
	s.guard.All(func(n knockcore.Nonce) bool {
		err = w.add(func(b []byte) []byte { return appendSpend(b, n) })
		return err == nil
	})
	if err != nil {
		return err
	}
	// After All: what was forgotten meanwhile lies below.
	if floor := s.guard.Floor(); !floor.IsZero() {
		if err := w.add(func(b []byte) []byte { return appendFloor(b, floor.UnixMilli()) }); err != nil {
			return err
		}
	}
	now := s.clock.read()
	err = each(&s.keptMu, s.grants, now, s.grantOver, func(k *keptGrant) error {
		return w.add(func(b []byte) []byte { return appendGrant(b, k) })
	})
	if err != nil {
		return err
	}
	return each(&s.keptMu, s.bans, now, s.banForgotten, func(k *keptBan) error {
		return w.add(func(b []byte) []byte { return appendBan(b, k) })
	})
}

// each calls f for what is in m and drops what is over. mu is held only while a
// few values are picked, never while f runs: the map may change meanwhile, and
// what the language says about a loop over such a map is what each does.
func each[K comparable, V any](mu *sync.Mutex, m map[K]V, now moment, over func(V, moment) bool, f func(V) error) (err error) {
	picked := make([]V, 0, 128)
	tell := func() bool {
		mu.Unlock()
		defer mu.Lock()
		for _, v := range picked {
			if err = f(v); err != nil {
				return false
			}
		}
		picked = picked[:0]
		return true
	}
	mu.Lock()
	defer mu.Unlock()
	for k, v := range m {
		if over(v, now) {
			delete(m, k)
			continue
		}
		if picked = append(picked, v); len(picked) == cap(picked) && !tell() {
			return err
		}
	}
	tell()
	return err
}
