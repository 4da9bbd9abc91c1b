// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// family is a process and its children: a server of several processes.
func (p *process) family() []int {
	all := []int{p.pid}
	for i := 0; i < len(all); i++ {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", all[i], all[i]))
		for _, field := range bytes.Fields(text) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// cpu is the processor time in seconds that the process and its children have
// used, exact to the nanosecond.
func (p *process) cpu() (seconds float64, err error) {
	for _, pid := range p.family() {
		// The kernel's clock of a process: see clock_getcpuclockid(3).
		const scheduled = 2
		var used unix.Timespec
		if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &used); err != nil {
			return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
		}
		seconds += float64(used.Nano()) / 1e9
	}
	return seconds, nil
}

// resident is the memory in bytes that the process and its children occupy.
func (p *process) resident() (n float64, err error) {
	for _, pid := range p.family() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, err
		}
		var size, pages float64
		if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
			return 0, err
		}
		n += pages * float64(os.Getpagesize())
	}
	return n, nil
}

// files is how many files the process and its children have open.
func (p *process) files() (n int) {
	for _, pid := range p.family() {
		list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		n += len(list)
	}
	return n
}
