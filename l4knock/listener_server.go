// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// udpGuard is the wrapper that guards HTTP/3, if the build has it.
const udpGuard = "knocked"

// checkServer refuses an HTTP server that the wrapper could not guard. Caddy's
// HTTP app provisions wrappers with the server in the context, after it has
// settled the server's addresses, protocols and TLS. Other apps have no HTTP/3.
// port is the one that frames must name, 0 for that of the listener.
func checkServer(ctx caddy.Context, port uint16) error {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return nil
	}
	httpPort := caddyhttp.DefaultHTTPPort
	for _, mod := range ctx.Modules() {
		if app, ok := mod.(*caddyhttp.App); ok && app.HTTPPort != 0 {
			httpPort = app.HTTPPort
		}
	}
	for i, address := range srv.Listen {
		addr, err := caddy.ParseNetworkAddress(address)
		if err != nil {
			return fmt.Errorf("parsing listener address %q: %w", address, err)
		}
		if addr.IsUnixNetwork() && port == 0 {
			return fmt.Errorf("%s has no port that frames could name: set `port`", address)
		}
		ports := addr.PortRangeSize()
		onlyHTTP := ports == 1 && addr.StartPort == uint(httpPort)
		if len(srv.TLSConnPolicies) == 0 || onlyHTTP {
			continue
		}
		if !beforeTLS(srv.ListenerWrappersRaw) {
			return errors.New("the frame would have to come inside TLS: in listener_wrappers, put `tls` after `knock`")
		}
		protocols := srv.Protocols
		if i < len(srv.ListenProtocols) && srv.ListenProtocols[i] != nil {
			protocols = srv.ListenProtocols[i]
		}
		if slices.Contains(protocols, "h3") && !addr.IsUnixNetwork() && !slices.Contains(wrapperNames(srv.PacketConnWrappersRaw), udpGuard) {
			return http3Error(address)
		}
	}
	return nil
}

func http3Error(address string) error {
	err := fmt.Errorf("HTTP/3 on %s would go past it, over UDP: add `protocols h1 h2` to the same `servers` block", address)
	if _, absent := caddy.GetModule("caddy.packetconns." + udpGuard); absent == nil {
		err = fmt.Errorf("%w, or guard it with `packet_conn_wrappers { %s }`", err, udpGuard)
	}
	return err
}

// beforeTLS reports whether every knock stands before tls. Caddy puts tls first if
// it is not there.
func beforeTLS(wrappers []json.RawMessage) bool {
	names := wrapperNames(wrappers)
	slices.Reverse(names)
	tls := slices.Index(names, "tls")
	return tls >= 0 && !slices.Contains(names[:tls], "knock")
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
