// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// The horizon file says how far the rest can be trusted. It has a single record
// of 88 bytes at its beginning, in one disk sector, that is overwritten in place:
//
//	magic 8, version u32, flags u32, boot ID 16, ceiling u64 (Unix ms),
//	base u64, last u64, synced u64, chain u32, zero 16, checksum u32
//
// The file has its blocks from the beginning, so it can be written when the disk
// is full.
type horizon struct {
	flags uint32
	boot  bootID
	// ceiling is the horizon: no frame with a later timestamp was accepted.
	ceiling int64
	// base is the generation of the snapshot that all begins with, and of the
	// first journal segment; last is that of the last segment.
	base, last uint64
	// synced is how many bytes of the last segment are there at least. After a
	// clean end it is how many there are, and chain is their checksum.
	synced int64
	chain  uint32
}

const (
	horizonName  = "horizon"
	horizonMagic = "knockhrz"
	horizonLen   = 88
	horizonRoom  = 4096
)

// The flags.
const (
	// flagClean: the store was closed, and everything is in the files.
	flagClean = 1 << iota
	// flagMissing: something could not be written.
	flagMissing
	// flagRevoked: the deletion of a live grant could not be written.
	flagRevoked
)

var errHorizon = errors.New("horizon is damaged or of another version")

func (h *horizon) encode() []byte {
	b := append(make([]byte, 0, horizonLen), horizonMagic...)
	b = le.AppendUint32(b, formatVersion)
	b = le.AppendUint32(b, h.flags)
	b = append(b, h.boot[:]...)
	b = le.AppendUint64(b, uint64(h.ceiling))
	b = le.AppendUint64(b, h.base)
	b = le.AppendUint64(b, h.last)
	b = le.AppendUint64(b, uint64(h.synced))
	b = le.AppendUint32(b, h.chain)
	b = append(b, make([]byte, horizonLen-4-len(b))...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHorizon(b []byte) (h horizon, err error) {
	if len(b) < horizonLen || string(b[:8]) != horizonMagic || le.Uint32(b[8:]) != formatVersion ||
		le.Uint32(b[horizonLen-4:]) != crc32.Checksum(b[:horizonLen-4], castagnoli) {
		return h, errHorizon
	}
	h.flags = le.Uint32(b[12:])
	copy(h.boot[:], b[16:])
	h.ceiling = int64(le.Uint64(b[32:]))
	h.base, h.last = le.Uint64(b[40:]), le.Uint64(b[48:])
	h.synced, h.chain = int64(le.Uint64(b[56:])), le.Uint32(b[64:])
	if h.ceiling > maxMillis || h.ceiling < -maxMillis || h.base > h.last {
		return h, errHorizon
	}
	return h, nil
}

// openHorizon reads the horizon. The file is nil if it can't be used any more;
// the error says why nothing could be read.
func openHorizon(root *os.Root) (f *os.File, h horizon, err error) {
	if f, err = root.OpenFile(horizonName, os.O_RDWR, 0); err != nil {
		return nil, h, err
	}
	b := make([]byte, horizonRoom)
	n, err := f.ReadAt(b, 0)
	if err == nil || err == io.EOF {
		h, err = decodeHorizon(b[:n])
	}
	if err != nil || n < horizonRoom {
		f.Close()
		return nil, h, err
	}
	return f, h, nil
}

// writeHorizon overwrites the horizon. A horizon that can't be written must not
// be believed: then the file is removed. The caller holds mu.
func (s *Store) writeHorizon() {
	if s.hfile == nil {
		s.disown()
		return
	}
	err := s.opts.fault("horizon write")
	if err == nil {
		_, err = s.hfile.WriteAt(s.horizon.encode(), 0)
	}
	if err != nil {
		s.loseHorizon(err)
	}
}

// loseHorizon gives the horizon file up. The caller holds mu.
func (s *Store) loseHorizon(err error) {
	s.faults++
	s.horizonErr = fmt.Errorf("writing the horizon: %w", err)
	if s.hfile != nil {
		s.hfile.Close()
		s.hfile = nil
	}
	s.owned = true
	s.disown()
	notify(s.work)
}

// disown removes a horizon file that says less than what is true, so that the
// next start trusts nothing; or empties it, if that is all that can be done. The
// caller holds mu.
func (s *Store) disown() {
	if !s.owned {
		return
	}
	err := s.opts.fault("horizon remove")
	if err == nil {
		if err = s.root.Remove(horizonName); err != nil && !errors.Is(err, os.ErrNotExist) {
			var f *os.File
			if f, err = s.root.OpenFile(horizonName, os.O_WRONLY|os.O_TRUNC, 0); err == nil {
				f.Close()
			}
		}
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		s.owned = false
		s.unsyncedNames = true
	}
}

// createHorizon makes a horizon file that says nothing yet, and puts it in place
// of the old one, durably.
func (s *Store) createHorizon() (*os.File, error) {
	if err := s.opts.fault("horizon create"); err != nil {
		return nil, err
	}
	err := s.replaceFile(horizonName, func(f *os.File) error {
		_, err := f.Write(make([]byte, horizonRoom))
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.root.OpenFile(horizonName, os.O_RDWR, 0)
}

// replaceFile writes a file and gives it its name when it is whole and durable.
func (s *Store) replaceFile(name string, write func(*os.File) error) error {
	tmp := name + ".tmp"
	f, err := s.root.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = s.datasync(f)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.root.Rename(tmp, name)
	}
	if err != nil {
		_ = s.root.Remove(tmp)
		return err
	}
	return s.syncNames()
}

// datasync is fsync of a file's contents.
func (s *Store) datasync(f *os.File) error {
	if err := s.opts.fault("sync"); err != nil {
		return err
	}
	if s.opts.synced != nil {
		defer s.opts.synced(f)()
	}
	if s.opts.noSync {
		return nil
	}
	return datasync(f)
}

// syncNames is fsync of the directory.
func (s *Store) syncNames() error {
	if s.opts.synced != nil {
		defer s.opts.synced(nil)()
	}
	if s.opts.noSync {
		return nil
	}
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return syncDir(d)
}
