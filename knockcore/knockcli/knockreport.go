// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"fmt"
	"io"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// knockReport is what send, open and close tell, as JSON or as text.
type knockReport struct {
	OK        bool                `json:"ok"`
	Method    string              `json:"method"`
	Action    string              `json:"action"`
	Host      string              `json:"host"`
	Sent      []delivery          `json:"sent"`
	Session   knockclient.Session `json:"session,omitempty"`
	Connected *connectedReport    `json:"connected,omitempty"`
	Error     string              `json:"error,omitempty"`
}

// delivery is one address that was knocked at, or skipped.
type delivery struct {
	Address   string `json:"address"`
	Datagrams int    `json:"datagrams"`
	Error     string `json:"error,omitempty"`
}

// connectedReport is what came of the knock.
type connectedReport struct {
	Address     string `json:"address"`
	Attempts    int    `json:"attempts"`
	ElapsedMS   int64  `json:"elapsed_ms"`
	Frame       bool   `json:"frame"`
	ServerProof bool   `json:"server_proof"`
}

func newKnockReport(k *knockclient.Knock, host string, sent *knockclient.Sent) *knockReport {
	r := &knockReport{Method: methodName(k.Method), Action: "open", Host: host, Sent: []delivery{}}
	if k.Close {
		r.Action = "close"
	}
	if sent != nil {
		r.add(sent)
	}
	return r
}

func (r *knockReport) add(sent *knockclient.Sent) {
	r.Session = sent.Session
	for _, d := range sent.Deliveries {
		listed := delivery{Address: d.To.String(), Datagrams: d.Datagrams}
		if d.Err != nil {
			listed.Error = d.Err.Error()
		}
		r.Sent = append(r.Sent, listed)
	}
}

// String is the report in one line.
func (r *knockReport) String() string {
	var at []string
	for _, d := range r.Sent {
		if d.Error == "" {
			at = append(at, d.Address)
		}
	}
	s := fmt.Sprintf("Knocked at %s by %s", strings.Join(at, " and "), r.Method)
	if r.Action == "close" {
		s += ", to close"
	}
	if c := r.Connected; c != nil {
		s += fmt.Sprintf(", connected to %s after %d ms (attempts: %d)", c.Address, c.ElapsedMS, c.Attempts)
		switch {
		case c.ServerProof:
			s += "; the server let the client in"
		case c.Frame:
			s += "; the frame was sent"
		}
	}
	return s + "."
}

// printDetails tells of each address.
func (r *knockReport) printDetails(w io.Writer) {
	for _, d := range r.Sent {
		if d.Error != "" {
			fmt.Fprintf(w, "%s: skipped: %s\n", d.Address, d.Error)
			continue
		}
		fmt.Fprintf(w, "%s: datagrams: %d\n", d.Address, d.Datagrams)
	}
	if len(r.Session) > 0 {
		fmt.Fprintf(w, "session: %v\n", r.Session)
	}
}
