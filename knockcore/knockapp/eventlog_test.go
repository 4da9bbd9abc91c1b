// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import "testing"

// TestEventLog: writers never wait for readers, and a reader that is too slow knows
// how much it missed.
func TestEventLog(t *testing.T) {
	l := new(eventLog)
	buffer := make([]eventRecord, 0, 100)
	records, missed, more := l.after(0, buffer)
	if len(records) != 0 || missed != 0 {
		t.Fatal(records, missed)
	}
	for range 3000 {
		l.add(eventRecord{Event: "granted"})
	}
	<-more
	seq, seen := uint64(7), uint64(0)
	for {
		records, n, _ := l.after(seq, buffer)
		if len(records) == 0 {
			break
		}
		if missed += n; records[0].seq != seq+n+1 {
			t.Fatalf("%d follows %d and %d missed", records[0].seq, seq, n)
		}
		seq = records[len(records)-1].seq
		seen += uint64(len(records))
	}
	if seq != 3000 || seen != eventLogSize || missed != 3000-7-eventLogSize {
		t.Errorf("at %d, %d seen, %d missed", seq, seen, missed)
	}
	// One more wakes those who wait, once.
	_, _, more = l.after(seq, buffer)
	select {
	case <-more:
		t.Error("woken by nothing")
	default:
	}
	l.add(eventRecord{})
	<-more
}

func BenchmarkEventLog(b *testing.B) {
	l := new(eventLog)
	b.ReportAllocs()
	for b.Loop() {
		l.add(eventRecord{Event: "granted"})
	}
}
