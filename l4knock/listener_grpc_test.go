// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package l4knock_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// TestGRPCBehindTheFrame calls a gRPC service behind reverse_proxy, and watches a
// stream of it.
func TestGRPCBehindTheFrame(t *testing.T) {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, status := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, status)
	go func() { _ = server.Serve(upstream) }()
	t.Cleanup(server.Stop)

	w := serveWrapped(t, "https", "", "reverse_proxy h2c://"+upstream.Addr().String())
	conn, err := grpc.NewClient("passthrough:///"+w.address(),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: w.roots})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return asAlice().DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := grpc_health_v1.NewHealthClient(conn)
	if answer, err := client.Check(ctx, new(grpc_health_v1.HealthCheckRequest)); err != nil || answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("got %v, %v", answer, err)
	}
	stream, err := client.Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		got, err := stream.Recv()
		if err != nil || got.Status != want {
			t.Fatalf("got %v, %v instead of %v", got, err, want)
		}
		status.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
}
