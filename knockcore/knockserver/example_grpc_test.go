// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// knockCreds are server credentials, here without TLS, that also tell handlers who
// knocked.
type knockCreds struct {
	credentials.TransportCredentials
}

// knockInfo is what they tell.
type knockInfo struct {
	credentials.AuthInfo
	knockserver.Peer
}

func (c knockCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	who, _ := knockserver.PeerOf(raw)
	return conn, knockInfo{info, who}, nil
}

// A gRPC server, and a handler that knows the client.
func ExampleNewListener_grpc() {
	guarded := guardedListener()
	server := grpc.NewServer(
		grpc.Creds(knockCreds{insecure.NewCredentials()}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			p, _ := peer.FromContext(ctx)
			fmt.Println(p.AuthInfo.(knockInfo).Grant.Client, "calls", info.FullMethod)
			return next(ctx, req)
		}),
	)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(guarded) }()
	defer server.Stop()

	conn, err := grpc.NewClient("passthrough:///"+guarded.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return aliceDialer().DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Status)

	// Output:
	// alice calls /grpc.health.v1.Health/Check
	// SERVING
}
