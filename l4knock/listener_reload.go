// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"encoding/json"
	"net"
	"slices"
	"sync"

	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// doors are the guarded listeners that are open, of all configurations, by what
// they listen on and how they are configured. During a reload there are two with
// the same key: a stream that was undecided when the old one closed goes on at the
// new one.
var doors struct {
	sync.Mutex
	open map[string][]*knockserver.Listener
}

// door is a guarded listener that is among the doors until it is closed.
type door struct {
	*knockserver.Listener
	key string
}

// doorKey says which listeners may take the connections of each other.
func (l *Listener) doorKey(ln net.Listener) string {
	same := *l
	same.At = "" // where it stands does not matter
	config, err := json.Marshal(&same)
	if err != nil {
		panic(err) // it came from JSON
	}
	return ln.Addr().Network() + " " + ln.Addr().String() + " " + string(config)
}

func openDoor(key string, ln *knockserver.Listener) *door {
	doors.Lock()
	defer doors.Unlock()
	if doors.open == nil {
		doors.open = make(map[string][]*knockserver.Listener)
	}
	doors.open[key] = append(doors.open[key], ln)
	return &door{ln, key}
}

// Close closes the listener. What comes too late for it goes to its successor.
func (d *door) Close() error {
	doors.Lock()
	rest := slices.DeleteFunc(doors.open[d.key], func(ln *knockserver.Listener) bool { return ln == d.Listener })
	if len(rest) == 0 {
		delete(doors.open, d.key)
	} else {
		doors.open[d.key] = rest
	}
	doors.Unlock()
	return d.Listener.Close()
}

// offer gives a connection to the newest of the doors with this key.
func offer(key string, conn net.Conn) bool {
	doors.Lock()
	defer doors.Unlock()
	for _, ln := range slices.Backward(doors.open[key]) {
		if ln.Offer(conn) {
			return true
		}
	}
	return false
}
