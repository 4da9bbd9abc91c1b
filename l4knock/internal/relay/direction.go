// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"io"
	"sync/atomic"
)

// direction moves bytes one way. All but the counters belongs to the goroutine
// that runs it.
type direction struct {
	relay    *Relay
	src, dst *endpoint
	header   []byte // what we say to dst first
	head     []byte // what was read from src before

	moved   atomic.Int64 // bytes of src handed to dst
	spliced atomic.Int64 // those of moved that were spliced
	writing atomic.Bool  // bytes are being handed to dst, or wait for it
	lost    bool         // bytes taken from src did not get to dst

	socket  socketReader
	splicer *splicer // nil until needed
}

func (d *direction) init(r *Relay, src, dst *endpoint) {
	d.relay, d.src, d.dst = r, src, dst
}

// run moves bytes until the source ends or something fails.
func (d *direction) run() {
	readErr, writeErr := d.copy()
	switch {
	case readErr == nil && writeErr == nil:
		d.relay.ended(d)
	case writeErr != nil:
		d.relay.failed(d, d.dst, writeErr)
	default:
		d.relay.failed(d, d.src, readErr)
	}
}

// copy returns two nils once the source has ended and dst has all of it.
func (d *direction) copy() (readErr, writeErr error) {
	if err := d.writeHead(); err != nil {
		return nil, err
	}
	if d.src.raw != nil {
		return d.copySocket()
	}
	return d.copyStream()
}

// writeHead sends what comes before all that src will send, as one segment if it
// fits.
func (d *direction) writeHead() error {
	first, header := d.head, len(d.header)
	if header > 0 {
		first = append(d.header, d.head...)
	}
	d.header, d.head = nil, nil
	if len(first) == 0 {
		return nil
	}
	n, err := d.dst.conn.Write(first)
	d.account(max(0, n-header))
	return d.wrote(n, len(first), err)
}

// write hands all of p to dst.
func (d *direction) write(p []byte) error {
	d.writing.Store(true)
	n, err := d.dst.conn.Write(p)
	d.account(n)
	d.writing.Store(false)
	return d.wrote(n, len(p), err)
}

func (d *direction) wrote(n, want int, err error) error {
	if n == want {
		return nil // the next use of dst will tell of an error
	}
	d.lost = true
	if err == nil {
		err = io.ErrShortWrite
	}
	return err
}

// account notes that n bytes were moved.
func (d *direction) account(n int) {
	if n <= 0 {
		return
	}
	d.moved.Add(int64(n))
	if w := d.relay.idle; w != nil {
		w.touch()
	}
}

// copyStream relays from a source of which we only know that it can be read, such
// as a TLS connection. There is no way to wait for it without a buffer: an idle
// direction keeps a small one, or a large one if the last read needed it.
func (d *direction) copyStream() (readErr, writeErr error) {
	pool := &smallBuffers
	buf := pool.get()
	defer func() { pool.put(buf) }()
	for {
		n, err := d.src.conn.Read(*buf)
		if n > 0 {
			if err := d.write((*buf)[:n]); err != nil {
				return nil, err
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // a wrapped EOF is no end, but an accident
			return nil, nil
		case err != nil:
			return err, nil
		}
		want := &smallBuffers
		if n >= smallSize {
			want = &buffers
		}
		if want != pool {
			pool.put(buf)
			pool, buf = want, want.get()
		}
	}
}
