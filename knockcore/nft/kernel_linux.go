// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// kernel talks to nf_tables: one request after another, from one goroutine.
type kernel struct {
	netns int
	link  *link
	conn  *nftables.Conn
	// port is the link's, for those who hear of our changes.
	port atomic.Uint32
	// destroys is whether the kernel can delete an element that may be absent:
	// 0 not known, 1 yes (Linux 6.3), -1 no.
	destroys int
}

// retries and retryPause bound what is done about a kernel short of buffers.
const (
	retries    = 4
	retryPause = 5 * time.Millisecond
)

// open makes sure of a connection.
func (k *kernel) open() error {
	if k.conn != nil {
		return nil
	}
	l, err := dialLink(k.netns)
	if err != nil {
		return explain(err)
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithTestDial(l.exchange))
	if err != nil {
		l.close()
		return err
	}
	k.link, k.conn = l, c
	k.port.Store(l.port)
	return nil
}

func (k *kernel) close() {
	if k.conn != nil {
		_ = k.conn.CloseLasting()
		k.link.close()
	}
	k.link, k.conn = nil, nil
}

// call runs one exchange; if the kernel was short of buffers it tries again, a
// few times, on a new connection. What fn does must be repeatable.
func (k *kernel) call(fn func(*nftables.Conn) error) error {
	pause := retryPause
	for attempt := 1; ; attempt++ {
		if err := k.open(); err != nil {
			return err
		}
		l := k.link
		err := fn(k.conn)
		if l.err != nil {
			err = l.err
			k.close()
		}
		if err == nil || attempt == retries || !isShortage(err) {
			return explain(err)
		}
		time.Sleep(pause)
		pause *= 4
	}
}

// commit builds a transaction and sends it; a genID other than 0 makes the
// kernel refuse it (ERESTART) if the rule set is not that any more.
func (k *kernel) commit(genID uint32, build func(*nftables.Conn) error) error {
	return k.call(func(c *nftables.Conn) error {
		if err := build(c); err != nil {
			k.close() // with what was built so far
			return err
		}
		if genID != 0 {
			return c.FlushWithGenID(genID)
		}
		return c.Flush()
	})
}

// canDestroy finds out, once, whether the kernel knows how to delete what may be
// absent: asked about a table that does not exist it then says so, and else that
// it does not understand.
func (k *kernel) canDestroy() bool {
	if k.destroys == 0 {
		err := k.probe(func(c *nftables.Conn) error {
			nowhere := &nftables.Table{Name: "caddy-knock-asks", Family: nftables.TableFamilyINet}
			return c.SetDestroyElements(setSpec{"nothing", kindMark, ""}.set(nowhere), []nftables.SetElement{{Key: make([]byte, 4)}})
		})
		switch {
		case isAbsent(err):
			k.destroys = 1
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
			k.destroys = -1
		}
	}
	return k.destroys == 1
}

// probe is commit on a connection of its own, for use while another transaction
// is being built.
func (k *kernel) probe(build func(*nftables.Conn) error) error {
	other := kernel{netns: k.netns}
	defer other.close()
	return other.commit(0, build)
}

// steady reads until the rule set did not change meanwhile, and returns its
// generation.
func (k *kernel) steady(read func() error) (genID uint32, err error) {
	for range 10 {
		before, err := k.generation()
		if err != nil {
			return 0, err
		}
		readErr := read()
		after, err := k.generation()
		if err != nil {
			return 0, err
		}
		if before == after {
			return after, readErr
		}
	}
	return 0, errors.New("reading nftables: the rule set keeps changing")
}

func isShortage(err error) bool {
	return errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)
}

func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// explain gives errors of the kernel a name and a cure.
func explain(err error) error {
	var errno syscall.Errno
	if err == nil || errors.Is(err, ErrPermission) || errors.Is(err, ErrUnsupported) || !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.EPERM, unix.EACCES:
		return fmt.Errorf("%w: %w: the process needs CAP_NET_ADMIN: with systemd AmbientCapabilities=CAP_NET_ADMIN (as in Caddy's own unit), by hand `setcap cap_net_admin+ep %s`, with Docker --cap-add NET_ADMIN", ErrPermission, err, executable())
	case unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP:
		return fmt.Errorf("%w: nf_tables or a part of it is missing from the kernel: %w", ErrUnsupported, err)
	case unix.ENFILE, unix.ENOSPC:
		return fmt.Errorf("%w: %w", ErrFull, err)
	default:
		return err
	}
}

func executable() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return "/usr/bin/caddy"
}
