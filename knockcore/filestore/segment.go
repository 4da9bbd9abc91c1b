// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"fmt"
	"os"
	"strings"
)

// segment is a file of the journal that is being written.
type segment struct {
	f       *os.File
	gen     uint64
	size    int64
	end     int64  // of the frames
	crc     uint32 // of the chain there
	records uint64 // how many there are
	useless bool   // to be removed when it is closed
}

const (
	journalPrefix  = "journal-"
	snapshotPrefix = "snapshot-"
)

func journalName(gen uint64) string  { return fmt.Sprintf("%s%016x", journalPrefix, gen) }
func snapshotName(gen uint64) string { return fmt.Sprintf("%s%016x", snapshotPrefix, gen) }

// generation reads the number of a journal segment or snapshot from its name,
// also of one that is not finished; 0 for other files.
func generation(name string) (gen uint64) {
	name = strings.TrimSuffix(name, ".tmp")
	digits, ok := strings.CutPrefix(name, journalPrefix)
	if !ok {
		digits, ok = strings.CutPrefix(name, snapshotPrefix)
	}
	if !ok || len(digits) != 16 {
		return 0
	}
	if _, err := fmt.Sscanf(digits, "%016x", &gen); err != nil {
		return 0
	}
	return gen
}

// createSegment makes an empty segment with all its room.
func (s *Store) createSegment(gen uint64) (*segment, error) {
	if err := s.opts.fault("journal create"); err != nil {
		return nil, err
	}
	f, err := s.root.OpenFile(journalName(gen), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	head := header{gen: gen, size: s.opts.segment, boot: s.clock.id}
	b := head.encode(journalMagic)
	if err = reserve(f, s.opts.segment); err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		f.Close()
		_ = s.root.Remove(journalName(gen))
		return nil, err
	}
	return &segment{f: f, gen: gen, size: s.opts.segment, end: headerLen, crc: le.Uint32(b[headerLen-4:])}, nil
}

// takeGen draws the number of a new generation. The caller holds mu.
func (s *Store) takeGen() uint64 {
	gen := s.nextGen
	s.nextGen++
	return gen
}

// write writes the record in s.buf to the journal. When it returns nil, the
// kernel has it. The caller holds mu.
func (s *Store) write() error {
	if s.seg == nil {
		return s.journalErr
	}
	if s.seg.end+int64(len(s.buf))+sealLen > s.seg.size {
		if err := s.nextSegment(); err != nil {
			s.fail(err)
			return s.journalErr
		}
	}
	if err := s.put(s.seg, s.buf); err != nil {
		s.fail(err)
		return s.journalErr
	}
	if !s.busy.Load() && s.busy.CompareAndSwap(false, true) {
		notify(s.wake)
	}
	return nil
}

// put writes a frame to a segment that has room for it. The caller holds mu.
func (s *Store) put(seg *segment, frame []byte) error {
	crc := sealFrame(frame, seg.crc)
	if err := s.opts.fault("journal write"); err != nil {
		return err
	}
	if _, err := seg.f.WriteAt(frame, seg.end); err != nil {
		return err
	}
	seg.crc = crc
	seg.end += int64(len(frame))
	seg.records++
	return nil
}

// nextSegment goes on to another segment. The caller holds mu.
func (s *Store) nextSegment() (err error) {
	next := s.spare
	if s.spare = nil; next == nil {
		if next, err = s.createSegment(s.takeGen()); err != nil {
			return err
		}
		s.unsyncedNames = true
	}
	return s.switchTo(next)
}

// switchTo seals the segment that is written, if there is one, and goes on with
// next. The caller holds mu.
func (s *Store) switchTo(next *segment) error {
	if old := s.seg; old != nil {
		var b [sealLen]byte
		if err := s.put(old, appendSeal(b[:frameLen], old.records, next.gen)); err != nil {
			s.full = append(s.full, next)
			return err
		}
		s.full = append(s.full, old)
		s.journalBytes += old.end - headerLen
	}
	s.seg, s.lastGen = next, next.gen
	if !s.broken {
		s.horizon.last, s.horizon.synced = next.gen, headerLen
		s.writeHorizon()
	}
	notify(s.work)
	return nil
}

// fail ends the writing of records after an error: from now on the files lack
// something, and say so. The caller holds mu.
func (s *Store) fail(err error) {
	s.faults++
	s.journalErr = fmt.Errorf("writing the journal: %w", err)
	s.broken = true
	if s.seg != nil {
		s.full = append(s.full, s.seg)
		s.seg = nil
	}
	s.horizon.flags |= flagMissing
	s.writeHorizon()
	notify(s.work)
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
