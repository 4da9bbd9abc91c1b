// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// maxForwarded is how many addresses X-Forwarded-For may name.
const maxForwarded = 20

// clientAddr finds the address that a request comes from, the zero Addr if it is
// not known. Unless Caddy trusts the peer as a proxy, it is the peer. Otherwise it
// is the rightmost address in X-Forwarded-For that is not a trusted proxy's: all
// lines count, in their order, and anything in them that is no address makes the
// client unknown. It never is the proxy itself. (knocker-http.md section 5)
//
// It does not allocate for peers that are not trusted.
func clientAddr(r *http.Request) netip.Addr {
	if !fromProxy(r) {
		return peerAddr(r)
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return netip.Addr{}
	}
	return forwardedAddr(r.Header["X-Forwarded-For"], func(addr netip.Addr) bool { return isProxy(server, addr) })
}

// fromProxy reports whether Caddy trusts the peer as a proxy.
func fromProxy(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// peerAddr is the address at the other end of the connection, the zero Addr for
// Unix sockets.
func peerAddr(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap().WithZone("")
}

// isProxy asks Caddy whether it would trust a peer with this address. The server
// keeps its list to itself, so it is asked as for a request.
func isProxy(server *caddyhttp.Server, addr netip.Addr) bool {
	probe := &http.Request{
		Method: http.MethodGet, URL: new(url.URL), Header: make(http.Header), RemoteAddr: net.JoinHostPort(addr.String(), "0"),
	}
	return fromProxy(caddyhttp.PrepareRequest(probe, caddy.NewEmptyReplacer(), nil, server))
}

// forwardedAddr walks lines of X-Forwarded-For from the right to the first address
// that is not a proxy's. All of the lines must be sound.
func forwardedAddr(lines []string, isProxy func(netip.Addr) bool) (client netip.Addr) {
	count := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			element := rest
			comma := strings.LastIndexByte(rest, ',')
			if more = comma >= 0; more {
				rest, element = rest[:comma], rest[comma+1:]
			}
			addr, err := netip.ParseAddr(strings.Trim(element, " \t"))
			if count++; err != nil || count > maxForwarded {
				return netip.Addr{}
			}
			if addr = addr.Unmap().WithZone(""); !client.IsValid() && !isProxy(addr) {
				client = addr
			}
		}
	}
	return client
}

// isEarly reports whether a request came before the TLS handshake was complete: it
// may be a replay, and nobody has shown that the peer is at its address.
func isEarly(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete || r.Header.Get("Early-Data") == "1"
}
