// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"

	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// peerKey is where handlers find the peer of their connection.
type peerKey struct{}

// withPeer is for http.Server.ConnContext. It works for HTTPS too.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	peer, _ := knockserver.PeerOf(conn)
	return context.WithValue(ctx, peerKey{}, peer)
}

func hello(w http.ResponseWriter, r *http.Request) {
	peer := r.Context().Value(peerKey{}).(knockserver.Peer)
	fmt.Fprintf(w, "%s, %s came with a frame", r.Proto, peer.Grant.Client)
}

// A web server of package net/http.
func ExampleNewListener_http() {
	guarded := guardedListener()
	server := &http.Server{Handler: http.HandlerFunc(hello), ConnContext: withPeer}
	go func() { _ = server.Serve(guarded) }()
	defer server.Close()

	client := &http.Client{Transport: &http.Transport{DialContext: aliceDialer().DialContext}}
	resp, err := client.Get("http://" + guarded.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", body)

	// Output:
	// HTTP/1.1, alice came with a frame
}

// The frame, and then TLS: strangers do not even see the certificate.
func ExampleNewListener_tls() {
	guarded := guardedListener()
	server := httptest.NewUnstartedServer(http.HandlerFunc(hello)) // for its certificate
	server.Listener.Close()
	server.Listener = guarded
	server.Config.ConnContext = withPeer
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()

	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client := &http.Client{Transport: &http.Transport{
		DialContext:       aliceDialer().DialContext,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
	}}
	resp, err := client.Get("https://" + guarded.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", body)

	// Output:
	// HTTP/2.0, alice came with a frame
}
