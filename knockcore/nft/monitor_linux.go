// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// changed says what somebody else changed.
type changed uint32

const (
	changedRules    changed = 1 << iota // anything but elements
	changedElements                     // elements of a set
)

const (
	monitorBuffer   = 4 << 20
	monitorPause    = 100 * time.Millisecond
	monitorPauseMax = 5 * time.Second
)

// monitor listens to changes of the rule set. It only looks at the kind of a
// change and the name of the table, so that it stays cheap where others change
// much, and safe whatever they write.
type monitor struct {
	// wake is readable when take has something.
	wake chan struct{}

	netns    int
	concerns func(family byte, table string) bool
	port     func() uint32
	bits     atomic.Uint32
	stop     chan struct{}
	done     chan struct{}

	mu    sync.Mutex
	conn  *netlink.Conn
	timer *time.Timer
}

func newMonitor(netns int, concerns func(byte, string) bool, port func() uint32) *monitor {
	m := &monitor{
		netns: netns, concerns: concerns, port: port,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	conn, _ := m.dial() // listening before anything is installed; else run tries again
	go m.run(conn)
	return m
}

func (m *monitor) dial() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: m.netns})
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(monitorBuffer)
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		_ = conn.Close()
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.stop:
		_ = conn.Close()
		return nil, errors.New("the monitor was closed")
	default:
		m.conn = conn
		return conn, nil
	}
}

func (m *monitor) run(conn *netlink.Conn) {
	defer close(m.done)
	for pause := monitorPause; ; pause = min(2*pause, monitorPauseMax) {
		if conn != nil {
			m.listen(conn)
			_ = conn.Close()
			pause = monitorPause
		}
		select {
		case <-m.stop:
			return
		case <-time.After(pause):
		}
		if conn, _ = m.dial(); conn != nil {
			m.mark(changedRules | changedElements) // who knows what we missed
		}
	}
}

// listen reads until the connection fails.
func (m *monitor) listen(conn *netlink.Conn) {
	for {
		msgs, err := conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS): // some were lost, more will come
			m.mark(changedRules | changedElements)
		case err != nil:
			return
		}
		var c changed
		for _, msg := range msgs {
			c |= m.judge(msg)
		}
		m.mark(c)
	}
}

// judge says what a message means to us.
func (m *monitor) judge(msg netlink.Message) changed {
	if msg.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || msg.Header.PID == m.port() || len(msg.Data) < 4 {
		return 0
	}
	kind := msg.Header.Type & 0xff
	if kind == unix.NFT_MSG_NEWGEN || kind == unix.NFT_MSG_TRACE {
		return 0
	}
	ad, err := netlink.NewAttributeDecoder(msg.Data[4:])
	if err != nil {
		return 0
	}
	for ad.Next() {
		// The table's name is attribute 1 of all kinds.
		if ad.Type() != unix.NFTA_TABLE_NAME {
			continue
		}
		switch {
		case !m.concerns(msg.Data[0], ad.String()):
			return 0
		case kind == unix.NFT_MSG_NEWSETELEM || kind == unix.NFT_MSG_DELSETELEM:
			return changedElements
		default:
			return changedRules
		}
	}
	return 0
}

func (m *monitor) mark(c changed) {
	if c == 0 {
		return
	}
	m.bits.Or(uint32(c))
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns what changed since the last call.
func (m *monitor) take() changed { return changed(m.bits.Swap(0)) }

// again wakes the reader after a while.
func (m *monitor) again(after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.timer != nil {
		m.timer.Stop()
	}
	m.timer = time.AfterFunc(after, func() { m.mark(changedRules) })
}

// close ends the monitor and waits for it.
func (m *monitor) close() {
	m.mu.Lock()
	close(m.stop)
	if m.conn != nil {
		_ = m.conn.Close()
	}
	if m.timer != nil {
		m.timer.Stop()
	}
	m.mu.Unlock()
	<-m.done
}
