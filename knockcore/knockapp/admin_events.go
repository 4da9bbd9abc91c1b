// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const (
	// maxReaders bounds the readers of the stream.
	maxReaders = 32
	// readerPatience is how long a reader may take to take something.
	readerPatience = 10 * time.Second
	// streamIdle is after how much silence a comment is sent, so that proxies and
	// readers know that the stream lives.
	streamIdle = 15 * time.Second
)

// streamReaders counts the readers of the stream.
var streamReaders atomic.Int32

// eventFilter says which events a reader wants.
type eventFilter struct {
	events          []string
	client, service string
}

var eventNames = []string{"granted", "refused", "expired", "revoked", "banned", "healed"}

func (f *eventFilter) wants(r *eventRecord) bool {
	return (len(f.events) == 0 || slices.Contains(f.events, r.Event)) &&
		(f.client == "" || f.client == r.Client) && (f.service == "" || f.service == r.Service)
}

// parseStream reads the parameters of a stream: what to tell, and from where on.
func parseStream(r *http.Request) (f eventFilter, from uint64, err error) {
	last := uint64(0)
	for key, values := range r.URL.Query() {
		value := values[len(values)-1]
		switch key {
		case "event":
			for _, name := range strings.Split(value, ",") {
				if !slices.Contains(eventNames, name) {
					return f, 0, fmt.Errorf("unknown event %q; expect %s", name, strings.Join(eventNames, ", "))
				}
				f.events = append(f.events, name)
			}
		case "client":
			f.client = value
		case "service":
			f.service = value
		case "last":
			if last, err = strconv.ParseUint(value, 10, 32); err != nil {
				return f, 0, fmt.Errorf("last %q is not a number", value)
			}
		default:
			return f, 0, fmt.Errorf("unknown parameter %q; expect event, client, service or last", key)
		}
	}
	now := happened.place()
	from = now - min(now, last)
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		born, seq, _ := strings.Cut(id, "-")
		n, err := strconv.ParseUint(seq, 10, 64)
		switch {
		case err != nil:
			return f, 0, errors.New("Last-Event-ID is not one of ours")
		case born != happened.born: // of the process before: all of ours is new
			from = 0
		default:
			from = min(n, now)
		}
	}
	return f, from, nil
}

// stream sends what happens as server-sent events, until the configuration ends:
// who reconnects with Last-Event-ID goes on where he was.
func stream(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method %s is not allowed here", r.Method)}
	}
	app, err := running()
	if err != nil {
		return err
	}
	filter, seq, err := parseStream(r)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	if streamReaders.Add(1) > maxReaders {
		streamReaders.Add(-1)
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: fmt.Errorf("%d readers follow the events already", maxReaders)}
	}
	defer streamReaders.Add(-1)
	control := http.NewResponseController(w)
	// Caddy bounds the time for reading a request, which for HTTP/1.1 would end the
	// stream.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("preparing the stream: %w", err)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	send := func(text string) error {
		if err := control.SetWriteDeadline(time.Now().Add(readerPatience)); err != nil {
			return err
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		return control.Flush()
	}
	if err := send(": caddy-knock\n\n"); err != nil {
		return nil // it is the reader who went
	}
	buffer := make([]eventRecord, 0, 64)
	idle := time.NewTicker(streamIdle)
	defer idle.Stop()
	for {
		records, missed, more := happened.after(seq, buffer)
		var text strings.Builder
		if missed > 0 {
			seq += missed
			fmt.Fprintf(&text, "event: missed\ndata: {\"missed\":%d}\n\n", missed)
		}
		for i := range records {
			seq = records[i].seq
			if !filter.wants(&records[i]) {
				continue
			}
			data, err := json.Marshal(&records[i])
			if err != nil {
				return err
			}
			fmt.Fprintf(&text, "id: %s-%d\nevent: %s\ndata: %s\n\n", happened.born, seq, records[i].Event, data)
		}
		if text.Len() > 0 {
			if err := send(text.String()); err != nil {
				return nil
			}
		}
		select {
		case <-more:
		case <-idle.C:
			if err := send(": still here\n\n"); err != nil {
				return nil
			}
		case <-app.emitter.stop:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}
