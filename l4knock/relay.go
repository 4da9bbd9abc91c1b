// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/mholt/caddy-l4/layer4"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/l4knock/internal/relay"
)

func init() { caddy.RegisterModule(new(Relay)) }

// Relay ends a route: it connects to an upstream and relays both ways, without
// copying in user space where both ends are TCP or unix sockets (Linux). Both
// directions are half-closed by themselves, so a request that is followed by its
// end gets its whole answer. An idle relay costs two descriptors and no buffer.
//
// Behind the handler `knock` it knows whom it serves: limits count per client and
// service, the PROXY protocol tells them, and it ends at once when its grant is
// revoked.
type Relay struct {
	// Upstreams are dialled in this order until one answers: `host:port`, or
	// `unix//path`. Placeholders are replaced for each connection.
	Upstreams []string `json:"upstreams"`

	// DialTimeout bounds the dial of each upstream. Default: 3s.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// ProxyProtocol is the version of the PROXY protocol header to send: v1 or v2.
	// A v2 header carries the client's ID as TLV 0xE0 and the service's name as TLV
	// 0xE1. Default: none.
	ProxyProtocol string `json:"proxy_protocol,omitempty"`

	// IdleTimeout ends a relay when neither direction has moved a byte for so long.
	// Default: never.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// KeepAlive is after how much silence TCP probes a peer. Default: as the
	// connections come.
	KeepAlive caddy.Duration `json:"keepalive,omitempty"`

	// UserTimeout is how long a TCP peer may leave data unacknowledged (Linux).
	// Default: as the system does.
	UserTimeout caddy.Duration `json:"user_timeout,omitempty"`

	// MaxPerClient bounds the relays of each client; more are closed. Default: a
	// quarter of the process's file limit, so that no client alone takes the
	// descriptors that others need.
	MaxPerClient int `json:"max_per_client,omitempty"`

	// MaxPerService bounds the relays to each service; more are closed. Default: no
	// bound.
	MaxPerService int `json:"max_per_service,omitempty"`

	// At is where the handler stands in the Caddyfile, as `file:line`. The
	// Caddyfile adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	options   relay.Options // but for what each connection brings
	perClient int
	metrics   *relayMetrics
	logger    *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*Relay) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "layer4.handlers.knock_relay", New: func() caddy.Module { return new(Relay) }}
}

// Provision checks the options.
func (r *Relay) Provision(ctx caddy.Context) error {
	r.logger = ctx.Logger()
	r.metrics = newRelayMetrics(ctx.GetMetricsRegistry())
	r.perClient = r.mostPerClient()
	if len(r.Upstreams) == 0 {
		return knockapp.Placed(r.At, errors.New("knock_relay has no upstream; name one such as 127.0.0.1:22"))
	}
	r.options = relay.Options{
		DialTimeout: time.Duration(r.DialTimeout), IdleTimeout: time.Duration(r.IdleTimeout),
		KeepAlive: time.Duration(r.KeepAlive), UserTimeout: time.Duration(r.UserTimeout),
	}
	switch r.ProxyProtocol {
	case "":
	case "v1":
		r.options.ProxyProtocol = 1
	case "v2":
		r.options.ProxyProtocol = 2
	default:
		return knockapp.Placed(r.At, fmt.Errorf("proxy_protocol %q; expect v1 or v2", r.ProxyProtocol))
	}
	for _, text := range r.Upstreams {
		if _, err := parseUpstream(text); err != nil {
			return knockapp.Placed(r.At, err)
		}
	}
	return knockapp.Placed(r.At, r.options.Validate())
}

// parseUpstream reads host:port or unix//path. Text with placeholders passes.
func parseUpstream(text string) (relay.Upstream, error) {
	addr, err := caddy.ParseNetworkAddress(text)
	if err != nil {
		return relay.Upstream{}, fmt.Errorf("upstream %q: %w", text, err)
	}
	if addr.IsUnixNetwork() {
		return relay.Upstream{Network: "unix", Address: addr.Host}, nil
	}
	switch {
	case addr.Network != "tcp" && addr.Network != "tcp4" && addr.Network != "tcp6":
		return relay.Upstream{}, fmt.Errorf("upstream %q: network %s can't be relayed to", text, addr.Network)
	case addr.PortRangeSize() != 1 || addr.StartPort == 0:
		return relay.Upstream{}, fmt.Errorf("upstream %q needs one port, such as 127.0.0.1:8080", text)
	}
	return relay.Upstream{Network: addr.Network, Address: addr.JoinHostPort(0)}, nil
}

// Handle relays.
func (r *Relay) Handle(cx *layer4.Connection, _ layer4.Handler) error {
	opts := r.options
	stream := admittedOf(cx)
	if stream != nil {
		opts.Client, opts.Service = stream.peer.Grant.Client, stream.peer.Grant.Service
	}
	leave, err := r.enter(opts.Client, opts.Service)
	if err != nil {
		r.logger.Warn("not relayed", zap.Stringer("remote", cx.RemoteAddr()), zap.String("client", opts.Client), zap.String("service", opts.Service), zap.Error(err))
		return nil
	}
	defer leave()
	for _, text := range r.Upstreams {
		upstream, err := parseUpstream(cx.Replacer().ReplaceAll(text, ""))
		if err != nil {
			return err
		}
		opts.Upstreams = append(opts.Upstreams, upstream)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if stream != nil {
		stream.onCut(func() { cancel(); _ = cx.Close() })
	}
	up, upstream, err := relay.Dial(ctx, &opts)
	if err != nil {
		r.metrics.ended.WithLabelValues(opts.Service, "dial_failed").Inc()
		return fmt.Errorf("connecting to the upstream: %w", err)
	}
	conn, head := bare(cx)
	if c := r.logger.Check(zap.DebugLevel, "relaying"); c != nil {
		c.Write(zap.Stringer("remote", cx.RemoteAddr()), zap.Stringer("upstream", upstream), zap.Bool("zero_copy", canSplice(conn)))
	}
	run := relay.New(conn, head, up, &opts)
	if stream != nil {
		stream.onCut(func() { run.Cut(errRevoked) })
	}
	r.done(cx, &opts, upstream, run.Run(ctx))
	return nil
}

var errRevoked = errors.New("grant revoked")

// done counts a relay that has ended and logs its line.
func (r *Relay) done(cx *layer4.Connection, opts *relay.Options, upstream relay.Upstream, stats relay.Stats) {
	r.metrics.ended.WithLabelValues(opts.Service, stats.Cause.String()).Inc()
	r.metrics.bytes.WithLabelValues(opts.Service, "up").Add(float64(stats.Up))
	r.metrics.bytes.WithLabelValues(opts.Service, "down").Add(float64(stats.Down))
	entry := r.logger.Check(zap.InfoLevel, "relayed")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.Stringer("remote", cx.RemoteAddr()), zap.Stringer("upstream", upstream),
		zap.String("client", opts.Client), zap.String("service", opts.Service),
		zap.Int64("bytes_up", stats.Up), zap.Int64("bytes_down", stats.Down), zap.Int64("bytes_spliced", stats.Spliced),
		zap.Duration("duration", stats.Duration), zap.Stringer("cause", stats.Cause),
	}
	if stats.Err != nil {
		fields = append(fields, zap.Error(stats.Err))
	}
	entry.Write(fields...)
}

// bare returns the connection below cx and what was read from it and not used.
// Nothing must be read through cx afterwards.
func bare(cx *layer4.Connection) (net.Conn, []byte) {
	conn, head := cx.Conn, cx.MatchingBytes()
	for {
		hc, ok := conn.(*headConn)
		if !ok {
			return conn, head
		}
		// What cx holds was read through hc, before what hc still holds.
		head = append(head[:len(head):len(head)], hc.head...)
		conn = hc.Conn
	}
}

// canSplice reports whether the connection is one that the kernel can relay.
func canSplice(conn net.Conn) bool {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	default:
		return false
	}
}

// Interface guards
var (
	_ caddy.Provisioner  = (*Relay)(nil)
	_ layer4.NextHandler = (*Relay)(nil)
)
