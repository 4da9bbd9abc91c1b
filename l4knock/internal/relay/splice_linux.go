// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import "golang.org/x/sys/unix"

const canSplice = true

const (
	// spliceFlags: the pipe never blocks, and sockets don't anyway.
	spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	// maxSplice bounds one splice, and so what a direction can have in its pipe.
	maxSplice = largePipe
	// minSplice is asked for when the destination seems to have no room.
	minSplice = 16 << 10
)

// splicer moves bytes from src to dst through a pipe, which it has only while
// bytes are on their way.
type splicer struct {
	d       *direction
	pipe    *pipe
	err     error
	room    int  // how much to take from src
	stalled bool // dst made us wait lately

	// The callbacks, made once, so that splicing allocates nothing.
	fill, drain, ready func(fd uintptr) bool
}

// spliceBurst moves what src has to give until there is no more for now, and says
// how much that was. Whether src has ended is for a plain read to say. ok is false
// if the plain read had better be the one to move bytes, too: then no pipe was to
// be had, or splice doesn't work with these sockets or in this sandbox.
func (d *direction) spliceBurst() (moved int64, ok bool, readErr, writeErr error) {
	s := d.splicer
	if s == nil {
		s = &splicer{d: d}
		s.fill, s.drain, s.ready = s.tryFill, s.tryDrain, s.tryReady
		d.splicer = s
	}
	defer s.release()
	for {
		s.room = maxSplice
		if s.stalled {
			// A slow peer. Wait for it without a pipe, and then take no more than it
			// has room for.
			s.release()
			if err := s.onDst(s.ready); err != nil {
				return moved, true, nil, err
			}
		}
		if s.pipe == nil {
			if s.pipe = pipes.get(); s.pipe == nil {
				return moved, false, nil, nil
			}
		}
		if err := d.src.raw.Read(s.fill); err != nil {
			return moved, true, err, nil
		}
		if s.pipe.held == 0 {
			s.stalled = false
			switch s.err {
			case nil, unix.EAGAIN:
				return moved, true, nil, nil
			case unix.EINVAL, unix.ENOSYS, unix.EPERM:
				return moved, false, nil, nil
			}
			return moved, true, d.src.opError("splice", s.err), nil
		}
		moved += int64(s.pipe.held)
		s.err = nil
		err := s.onDst(s.drain)
		if s.err != nil {
			err = d.dst.opError("splice", s.err)
		}
		if err != nil {
			return moved, true, nil, err
		}
	}
}

// onDst calls try until it is done with dst, and lets it be known that bytes wait.
func (s *splicer) onDst(try func(fd uintptr) bool) error {
	s.d.writing.Store(true)
	defer s.d.writing.Store(false)
	return s.d.dst.raw.Write(try)
}

// release gives the pipe back.
func (s *splicer) release() {
	if s.pipe != nil {
		s.d.lost = s.d.lost || s.pipe.held > 0
		pipes.put(s.pipe)
		s.pipe = nil
	}
}

// tryFill splices from src into the empty pipe, once. It never waits.
func (s *splicer) tryFill(fd uintptr) bool {
	var n int
	n, s.err = splice(int(fd), s.pipe.w, s.room)
	s.pipe.held = max(0, n)
	return true
}

// tryDrain splices from the pipe into dst until the pipe is empty. It is called
// again when dst takes more.
func (s *splicer) tryDrain(fd uintptr) bool {
	for s.pipe.held > 0 {
		n, err := splice(s.pipe.r, int(fd), s.pipe.held)
		switch {
		case n > 0:
			s.pipe.held -= n
			s.d.spliced.Add(int64(n))
			s.d.account(n)
		case err == unix.EAGAIN:
			s.stalled = true
			return false
		default:
			if err == nil {
				err = unix.EPIPE // no bytes and no error: not to be expected
			}
			s.err = err
			return true
		}
	}
	return true
}

// tryReady waits for dst to take bytes, and learns how many.
func (s *splicer) tryReady(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(fds[:], 0)
		if n == 0 && err == nil {
			return false
		}
		if err != unix.EINTR {
			break
		}
	}
	s.room = max(minSplice, min(maxSplice, sendRoom(int(fd))))
	return true
}

func splice(from, to, n int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, n, spliceFlags)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}
