// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// maxPipes bounds the pipes of this process, two descriptors each. They are
	// needed only while bytes are on their way from one socket to the other, so that
	// a few serve thousands of relays. Who finds none copies.
	maxPipes = 128
	// maxIdlePipes bounds those that wait for use, of each size.
	maxIdlePipes = 32

	// largePipe is the most that the kernel allows by default. Splicing 1 GB through
	// it takes 0.17 s of CPU (64 streams on loopback), 0.20 s through 256 KiB.
	largePipe = 1 << 20
	// smallPipe is the kernel's own size; less is not worth it.
	smallPipe = 64 << 10
	// maxLargePipes keeps all pipes together below 40 MiB of the 64 MiB that the
	// kernel lets a user without privileges have (pipe-user-pages-soft). Only what is
	// in a pipe takes memory; the limit counts what could be.
	maxLargePipes = 32
)

// pipe is where bytes are between two splices.
type pipe struct {
	r, w int
	held int // bytes inside
	size int // 0 is small, 1 large: the index in a pipePool
}

// pipePool lends pipes that are empty.
type pipePool struct {
	mu   sync.Mutex
	idle [2][]*pipe
	live [2]int // idle and lent
}

var pipes pipePool

// get lends a pipe, nil if there are none left or the system gives none.
func (p *pipePool) get() *pipe {
	p.mu.Lock()
	size := 1
	for ; size >= 0; size-- {
		if n := len(p.idle[size]); n > 0 {
			q := p.idle[size][n-1]
			p.idle[size] = p.idle[size][:n-1]
			p.mu.Unlock()
			return q
		}
		if size == 1 && p.live[1] < maxLargePipes || size == 0 && p.live[0]+p.live[1] < maxPipes {
			break
		}
	}
	if size < 0 {
		p.mu.Unlock()
		return nil
	}
	p.live[size]++
	p.mu.Unlock()

	q := newPipe(size)
	if q == nil {
		p.mu.Lock()
		p.live[size]--
		p.mu.Unlock()
	}
	return q
}

func newPipe(size int) *pipe {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil
	}
	q := &pipe{r: fds[0], w: fds[1], size: size}
	if size == 1 {
		if _, err := unix.FcntlInt(uintptr(q.r), unix.F_SETPIPE_SZ, largePipe); err == nil {
			return q
		}
	}
	// Of a user who has many pipes already, the kernel makes new ones tiny.
	if got, err := unix.FcntlInt(uintptr(q.r), unix.F_GETPIPE_SZ, 0); err == nil && got < smallPipe {
		q.close()
		return nil
	}
	return q
}

// put takes a pipe back. One that still holds bytes is closed: they must not end
// up in another connection.
func (p *pipePool) put(q *pipe) {
	p.mu.Lock()
	if q.held == 0 && len(p.idle[q.size]) < maxIdlePipes {
		p.idle[q.size] = append(p.idle[q.size], q)
		p.mu.Unlock()
		return
	}
	p.live[q.size]--
	p.mu.Unlock()
	q.close()
}

func (q *pipe) close() {
	_ = unix.Close(q.r)
	_ = unix.Close(q.w)
}
