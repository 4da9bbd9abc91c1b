// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A file of records is a header and frames:
//
//	header  64 bytes: magic 8, version u32, zero u32, generation u64,
//	        size u64 (of a journal segment; 0 in snapshots), boot ID 16,
//	        zero 12, checksum u32
//	frame   length u32 (of the record, never 0), checksum u32, record
//
// Numbers are little-endian, checksums CRC-32C. A frame's checksum is over its
// length and record and begins with that of what stands before it, so a frame
// is only valid in its place: one that is lost, doubled or left over from
// another file breaks the chain.
//
// A snapshot ends with a seal, and there the file ends. A journal segment has
// its full size from the beginning and is zero behind its frames; it ends with
// a seal, which names the next one, if another segment follows. Cutting anything
// off is thus seen.

const (
	journalMagic  = "knockjrn"
	snapshotMagic = "knocksnp"
	formatVersion = 1
	headerLen     = 64
	frameLen      = 8
	sealLen       = frameLen + 1 + 8 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errHeader = errors.New("header is damaged or of another version")
	errChain  = errors.New("checksum is wrong")
	errCut    = errors.New("file is cut off")
	errBehind = errors.New("something stands behind the end")
)

// header is the beginning of a file of records.
type header struct {
	gen  uint64
	size int64
	boot bootID
}

func (h *header) encode(magic string) []byte {
	b := append(make([]byte, 0, headerLen), magic...)
	b = le.AppendUint32(b, formatVersion)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, h.gen)
	b = le.AppendUint64(b, uint64(h.size))
	b = append(b, h.boot[:]...)
	b = append(b, make([]byte, headerLen-4-len(b))...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHeader(b []byte, magic string) (h header, crc uint32, err error) {
	crc = le.Uint32(b[headerLen-4:])
	if string(b[:8]) != magic || le.Uint32(b[8:]) != formatVersion || crc32.Checksum(b[:headerLen-4], castagnoli) != crc {
		return h, 0, errHeader
	}
	h.gen, h.size = le.Uint64(b[16:]), int64(le.Uint64(b[24:]))
	copy(h.boot[:], b[32:])
	return h, crc, nil
}

// sealFrame puts length and checksum into a frame, whose record is in place, and
// returns the chain's checksum after it.
func sealFrame(b []byte, crc uint32) uint32 {
	le.PutUint32(b, uint32(len(b)-frameLen))
	crc = crc32.Update(crc, castagnoli, b[:4])
	crc = crc32.Update(crc, castagnoli, b[frameLen:])
	le.PutUint32(b[4:], crc)
	return crc
}

// contents is what was found in a file of records.
type contents struct {
	header
	end    int64  // of the valid frames
	crc    uint32 // of the chain there
	sealed bool
	next   uint64 // the generation that follows, if it is sealed
}

// scan reads a file of records and calls apply for each valid one but the seal,
// until apply fails. It allocates no more than a buffer, whatever the file says.
// The error tells why the file ends before its end; what came before is valid.
func scan(r io.Reader, size int64, magic string, apply func(*record, *header) error) (c contents, err error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(headerLen)
	if err != nil {
		return c, errCut
	}
	if c.header, c.crc, err = decodeHeader(head, magic); err != nil {
		return c, err
	}
	_, _ = br.Discard(headerLen)
	c.end = headerLen
	if magic == journalMagic && c.size != size {
		return c, errCut
	}
	var d decoder
	for count := uint64(0); ; count++ {
		frame, err := nextFrame(br, c.crc)
		if err != nil {
			return c, err
		}
		if frame == nil {
			return c, c.checkEnd(br, magic)
		}
		rec, err := d.decode(frame[frameLen:])
		switch {
		case err != nil:
			return c, err
		case rec.kind != recordSeal:
			err = apply(&rec, &c.header)
		case rec.count != count:
			return c, fmt.Errorf("%w: %d of %d records are there", errCut, count, rec.count)
		}
		if err != nil {
			return c, err
		}
		c.crc = le.Uint32(frame[4:])
		c.end += int64(len(frame))
		_, _ = br.Discard(len(frame))
		if rec.kind == recordSeal {
			c.sealed, c.next = true, rec.next
			return c, c.checkEnd(br, magic)
		}
	}
}

// nextFrame looks at the next frame, nil if there is none.
func nextFrame(br *bufio.Reader, crc uint32) ([]byte, error) {
	head, err := br.Peek(frameLen)
	switch {
	case err == io.EOF && allZero(head):
		return nil, nil
	case err == io.EOF:
		return nil, errCut
	case err != nil:
		return nil, err
	}
	length := le.Uint32(head)
	if length == 0 {
		return nil, nil
	}
	if length > maxRecord {
		return nil, errChain
	}
	frame, err := br.Peek(frameLen + int(length))
	if err == io.EOF {
		return nil, errCut
	} else if err != nil {
		return nil, err
	}
	crc = crc32.Update(crc, castagnoli, frame[:4])
	crc = crc32.Update(crc, castagnoli, frame[frameLen:])
	if crc != le.Uint32(frame[4:]) {
		return nil, errChain
	}
	return frame, nil
}

// checkEnd checks what stands behind the frames.
func (c *contents) checkEnd(br *bufio.Reader, magic string) error {
	if magic == snapshotMagic {
		if !c.sealed {
			return errCut
		}
		if _, err := br.Peek(1); err == nil {
			return errBehind
		}
		return nil
	}
	at := c.end
	for {
		_, err := br.Peek(1)
		if err == nil {
			b, _ := br.Peek(br.Buffered())
			if !allZero(b) {
				return errBehind
			}
			at += int64(len(b))
			_, _ = br.Discard(len(b))
			continue
		}
		if err != io.EOF {
			return err
		}
		if at != c.size {
			return errCut
		}
		return nil
	}
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// scanFile scans a file of the store's directory.
func scanFile(root *os.Root, name, magic string, apply func(*record, *header) error) (c contents, err error) {
	f, err := root.Open(name)
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	return scan(f, info.Size(), magic, apply)
}
