// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package relay

import "golang.org/x/sys/unix"

// canWait: a read callback may say "not yet" and is called again when there is
// something to read, so that nothing is held while waiting.
const canWait = true

// minBulk is how much a burst has to bring for the next one to be spliced from its
// first byte. For less, two copies cost no more than two splices (measured; both
// are little beside TCP's own work).
const minBulk = bufferSize

// socketReader reads from a socket and holds a buffer only while there is data.
type socketReader struct {
	try  func(fd uintptr) bool // made once, so that reading allocates nothing
	pool *bufferPool
	bulk bool // leave what comes next where it is

	// The outcome: bytes, an end, an error, or just that bulk has come.
	waited bool
	buf    *[]byte
	n      int
	end    bool
	err    error
}

// copySocket relays from a bare socket. Small amounts are copied. Of more than a
// buffer full the rest is spliced, if dst is a bare socket too. The plain read has
// the last word on "no more for now" and on the end, since TCP urgent data makes
// splice say either.
func (d *direction) copySocket() (readErr, writeErr error) {
	s := &d.socket
	s.try, s.pool = s.tryRead, &buffers
	splices := canSplice && d.dst.raw != nil
	for {
		s.waited, s.buf, s.n, s.end, s.err = false, nil, 0, false, nil
		switch err := d.src.raw.Read(s.try); {
		case err != nil:
			return err, nil
		case s.err != nil:
			return d.src.opError("read", s.err), nil
		case s.end:
			return nil, nil
		}
		more := true // than this
		if s.buf != nil {
			more = s.n == len(*s.buf)
			err := d.write((*s.buf)[:s.n])
			s.pool.put(s.buf)
			s.buf = nil
			if err != nil {
				return nil, err
			}
		}
		s.bulk, s.pool = false, &buffers
		if !more {
			continue
		}
		if splices {
			moved, ok, readErr, writeErr := d.spliceBurst()
			if readErr != nil || writeErr != nil {
				return readErr, writeErr
			}
			if ok {
				s.bulk = moved >= minBulk
				continue
			}
		}
		s.pool = &largeBuffers
	}
}

// tryRead is called at once, and again whenever there may be something to read.
func (s *socketReader) tryRead(fd uintptr) bool {
	if s.bulk && s.waited {
		return true
	}
	s.waited = true
	buf := s.pool.get()
	for {
		n, err := unix.Read(int(fd), *buf)
		switch {
		case n > 0:
			s.buf, s.n = buf, n
			return true
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			s.pool.put(buf)
			s.pool = &buffers
			return false
		}
		s.pool.put(buf)
		s.end, s.err = err == nil, err
		return true
	}
}
