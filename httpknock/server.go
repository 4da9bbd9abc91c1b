// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
)

// wrapperName is the name of both wrappers.
const wrapperName = "knocked"

// listenPlace is where a server serves HTTP/3.
type listenPlace struct {
	caddy.NetworkAddress
	port uint
}

// http3Places finds where the server that is being provisioned serves HTTP/3.
// Caddy's HTTP app provisions wrappers with the server in the context, after it has
// settled the server's addresses, protocols and TLS. Other apps have no HTTP/3.
func http3Places(ctx caddy.Context) (places []listenPlace, err error) {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || len(srv.TLSConnPolicies) == 0 {
		return nil, nil
	}
	httpPort := uint(caddyhttp.DefaultHTTPPort)
	for _, mod := range ctx.Modules() {
		if app, ok := mod.(*caddyhttp.App); ok && app.HTTPPort != 0 {
			httpPort = uint(app.HTTPPort)
		}
	}
	for i, text := range srv.Listen {
		addr, err := caddy.ParseNetworkAddress(text)
		if err != nil {
			return nil, fmt.Errorf("parsing listener address %q: %w", text, err)
		}
		protocols := srv.Protocols
		if i < len(srv.ListenProtocols) && srv.ListenProtocols[i] != nil {
			protocols = srv.ListenProtocols[i]
		}
		if addr.IsUnixNetwork() || !slices.Contains(protocols, "h3") {
			continue
		}
		for port := addr.StartPort; port <= addr.EndPort; port++ {
			if port != httpPort {
				places = append(places, listenPlace{addr, port})
			}
		}
	}
	return places, nil
}

// String is the address, as in Caddyfiles.
func (p listenPlace) String() string { return caddy.JoinNetworkAddress("", p.Host, fmt.Sprint(p.port)) }

// isAt reports whether a socket may be the place's.
func (p listenPlace) isAt(local net.Addr) bool {
	udp, ok := local.(*net.UDPAddr)
	if !ok || uint(udp.Port) != p.port {
		return false
	}
	if p.Host == "" {
		return udp.IP.IsUnspecified()
	}
	host, err := netip.ParseAddr(p.Host)
	return err != nil || host.WithZone("").Unmap() == addrOf(udp).WithZone("").Unmap()
}

// isOpen reports whether Caddy has a socket open for HTTP/3 there.
func (p listenPlace) isOpen() bool {
	network := map[string]string{"tcp4": "udp4", "tcp6": "udp6"}[p.Network]
	if network == "" {
		network = "udp"
	}
	return caddy.ListenerUsage("quic"+network, p.JoinHostPort(p.port-p.StartPort)) > 0
}

// checkServer refuses an HTTP server that the listener wrapper could not guard.
func checkServer(ctx caddy.Context) error {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return nil
	}
	if len(srv.TLSConnPolicies) > 0 && !beforeTLS(srv.ListenerWrappersRaw) {
		return errors.New("it would come after TLS: in listener_wrappers, put `tls` after `knocked`")
	}
	places, err := http3Places(ctx)
	if err != nil {
		return err
	}
	if len(places) > 0 && !slices.Contains(wrapperNames(srv.PacketConnWrappersRaw), wrapperName) {
		return fmt.Errorf("HTTP/3 on %s would go past it, over UDP: add `packet_conn_wrappers { knocked }` or `protocols h1 h2` to the same `servers` block", places[0])
	}
	return nil
}

// checkOpen refuses places where a socket is open without a door: Caddy would go on
// using it as it is.
func checkOpen(places []listenPlace) error {
	for _, p := range places {
		if p.isOpen() && !packetDoors.guards(p) {
			return fmt.Errorf("HTTP/3 on %s is being served already, and a reload can't put a guard on an open socket: restart Caddy, or first load a configuration with `protocols h1 h2`", p)
		}
	}
	return nil
}

// beforeTLS reports whether every knocked stands before tls. Caddy puts tls first if
// it is not there.
func beforeTLS(wrappers []json.RawMessage) bool {
	names := wrapperNames(wrappers)
	slices.Reverse(names)
	tls := slices.Index(names, "tls")
	return tls >= 0 && !slices.Contains(names[:tls], wrapperName)
}

// wrapperNames reads the names of wrappers that are not loaded yet.
func wrapperNames(wrappers []json.RawMessage) []string {
	names := make([]string, len(wrappers))
	for i, raw := range wrappers {
		var w struct {
			Wrapper string `json:"wrapper"`
		}
		_ = json.Unmarshal(raw, &w) // Caddy says what is wrong with it
		names[i] = w.Wrapper
	}
	return names
}

// packetDoors are the doors of all configurations that are loaded, and the sockets
// that have one.
var packetDoors doorList

type doorList struct {
	mu      sync.Mutex
	doors   []*PacketConn
	sockets []*doorPacketConn
}

func (l *doorList) add(p *PacketConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doors = append(l.doors, p)
}

func (l *doorList) remove(p *PacketConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doors = slices.DeleteFunc(l.doors, func(other *PacketConn) bool { return other == p })
}

func (l *doorList) open(c *doorPacketConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sockets = append(l.sockets, c)
}

func (l *doorList) closed(c *doorPacketConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sockets = slices.DeleteFunc(l.sockets, func(other *doorPacketConn) bool { return other == c })
}

// find returns the door of a configuration for a socket, nil if it has none.
func (l *doorList) find(app *knockapp.App, local net.Addr) *PacketConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.doors {
		if p.App == app && slices.ContainsFunc(p.places, func(place listenPlace) bool { return place.isAt(local) }) {
			return p
		}
	}
	return nil
}

// guards reports whether the socket of a place has a door.
func (l *doorList) guards(p listenPlace) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.sockets, func(c *doorPacketConn) bool { return p.isAt(c.LocalAddr()) })
}
