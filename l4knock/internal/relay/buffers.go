// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import "sync"

const (
	// smallSize is the buffer of an idle stream.
	smallSize = 1 << 10
	// bufferSize is the buffer for what a socket has to say after silence, and of a
	// stream that flows: a TLS record fits.
	bufferSize = 16 << 10
	// largeSize is the buffer for a socket that flows and can't be spliced.
	largeSize = 64 << 10
)

// bufferPool lends buffers of one size.
type bufferPool struct {
	size int
	pool sync.Pool // of *[]byte
}

var (
	smallBuffers = bufferPool{size: smallSize}
	buffers      = bufferPool{size: bufferSize}
	largeBuffers = bufferPool{size: largeSize}
)

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.size)
	return &b
}

func (p *bufferPool) put(b *[]byte) { p.pool.Put(b) }
