// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestPersistent resets two connections, as a reload does, and answers the third.
func TestPersistent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for range 2 {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	}()
	client := http.Client{Transport: Persistent(http.DefaultTransport)}
	resp, err := client.Post("http://"+ln.Addr().String(), "text/plain", strings.NewReader("whole"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "whole" {
		t.Fatalf("the answer is %q", body)
	}
}
