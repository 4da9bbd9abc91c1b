// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// process is who keeps a table: its ID and when it started, in clock ticks since
// boot, so that another process with the same ID is not taken for it.
type process struct {
	pid   uint32
	since uint64
}

func (p process) comment() string { return fmt.Sprintf("pid %d since %d", p.pid, p.since) }

// self is this process.
func self() process {
	pid := os.Getpid()
	since, _ := startTime(pid)
	return process{uint32(pid), since}
}

// startTime reads field 22 of /proc/PID/stat. The second field is the program's
// name in parentheses, which may hold anything.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// alive reports whether the process still runs.
func (p process) alive() bool {
	since, err := startTime(int(p.pid))
	return err == nil && since == p.since
}

// owners reads the marker.
func (k *kernel) owners(table *nftables.Table) (list []process, err error) {
	err = k.call(func(c *nftables.Conn) error {
		list = nil
		elems, err := c.GetSetElements(setSpec{markerSet, kindMark, ""}.set(table))
		for _, e := range elems {
			var p process
			if len(e.Key) == 4 {
				p.pid = binary.NativeEndian.Uint32(e.Key)
			}
			var pid uint32
			if n, _ := fmt.Sscanf(e.Comment, "pid %d since %d", &pid, &p.since); n == 2 && pid == p.pid {
				list = append(list, p)
			}
		}
		return err
	})
	return list, err
}

// claims are the tables that engines of this process keep.
var claims sync.Map // claim → *gate

type claim struct {
	netns uint64
	table string
}

// claimOf names a table across namespaces.
func claimOf(netns int, table string) (claim, error) {
	var st unix.Stat_t
	var err error
	if netns > 0 {
		err = unix.Fstat(netns, &st)
	} else {
		err = unix.Stat("/proc/thread-self/ns/net", &st)
	}
	if err != nil {
		return claim{}, fmt.Errorf("looking at the network namespace: %w", err)
	}
	return claim{st.Ino, table}, nil
}
