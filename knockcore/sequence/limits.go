// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package sequence

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"unsafe"
)

// Limits bound what a Matcher remembers.
type Limits struct {
	// Sources is how many source addresses with a running attempt are remembered:
	// 16 to 2^24, rounded down to a power of two; 0 means 131072.
	Sources int
	// Memory bounds the tables in bytes; Sources is lowered until they fit. 0
	// means 64 MiB. The memory is touched only as sources come.
	Memory int
	// DoorsPerSource is at how many doors one source can have attempts at a time;
	// the least advanced, oldest makes room for another. Doors that begin with
	// the same step count as one. 0 means 8.
	DoorsPerSource int
}

// The defaults of Limits.
const (
	DefaultSources        = 1 << 17
	DefaultMemory         = 64 << 20
	DefaultDoorsPerSource = 8
)

func newTable(doors []*door, limits Limits) (*table, error) {
	t := &table{seed: maphash.MakeSeed(), perRing: recentLeast}
	starts := make(map[uint32]int)
	oneTime, most := 0, 0
	for _, d := range doors {
		if d.pub.OneTime != nil {
			oneTime++
			t.perState, t.perRing = MaxSteps-1, max(t.perRing, recentOneTime)
			continue
		}
		t.perState = max(t.perState, len(d.steps)-1)
		if d.sensitive() {
			t.perRing = max(t.perRing, min(max(8, 2*len(d.steps)), recentMost))
		}
		for _, s := range d.steps[:1] {
			key := portKey(s.Protocol, s.Port)
			starts[key]++
			most = max(most, starts[key])
		}
	}
	if limits.DoorsPerSource == 0 {
		limits.DoorsPerSource = DefaultDoorsPerSource
	}
	t.perRec = max(1, min(limits.DoorsPerSource+max(0, most+oneTime-1), len(doors)))

	sources, memory := limits.Sources, int64(limits.Memory)
	if sources == 0 {
		sources = DefaultSources
	}
	if memory == 0 {
		memory = DefaultMemory
	}
	if sources < ways || sources > 1<<24 || memory < 0 || limits.DoorsPerSource < 0 {
		return nil, fmt.Errorf("limits %+v: sources must be %d to %d, the others not negative", limits, ways, 1<<24)
	}
	sources = 1 << (bits.Len(uint(sources)) - 1)
	for sources > ways && int64(sources)*t.recordBytes() > memory {
		sources /= 2
	}
	if int64(sources)*t.recordBytes() > memory {
		return nil, fmt.Errorf("limits: %d bytes of memory are too few for %d sources; give at least %d", memory, ways, ways*t.recordBytes())
	}
	t.sets = sources / ways
	t.records = make([]record, sources)
	t.states = make([]state, sources*t.perRec)
	t.stages = make([]stage, sources*t.perRec*t.perState)
	t.recent = make([]seen, sources*t.perRing)
	return t, nil
}

// recordBytes is what a source takes, at all doors.
func (t *table) recordBytes() int64 {
	return int64(unsafe.Sizeof(record{})) + int64(t.perRing)*int64(unsafe.Sizeof(seen{})) +
		int64(t.perRec)*int64(unsafe.Sizeof(state{})+uintptr(t.perState)*unsafe.Sizeof(stage{}))
}
