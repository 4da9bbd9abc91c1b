// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockserver_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
	"github.com/caddy-knock/caddy-knock/knockcore/knockserver"
)

// aliceSecret is what the client of the examples knows. A real one comes from `caddy-knock
// keygen`, by way of knockcore.ParseSecret.
var aliceSecret = knockcore.NewSecret([]byte("correct horse battery staple"))

func aliceAlone() *knockserver.Clients {
	list, err := knockserver.NewClients(&knockcore.Client{ID: "alice", Secrets: []knockcore.Secret{aliceSecret}})
	if err != nil {
		log.Fatal(err)
	}
	return list
}

// aliceDialer is how alice connects: wherever a net.Dialer would do.
func aliceDialer() *knockclient.Dialer {
	return &knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: aliceSecret, ServerProof: true}}
}

// guardedListener is a listener on a free port of loopback that lets alice in.
func guardedListener() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	guarded, err := knockserver.NewListener(ln, knockserver.Config{Clients: aliceAlone()})
	if err != nil {
		log.Fatal(err)
	}
	return guarded
}

// A TCP echo server: only the line with NewListener is new.
func ExampleNewListener() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	guarded, err := knockserver.NewListener(ln, knockserver.Config{Clients: aliceAlone()})
	if err != nil {
		log.Fatal(err)
	}
	defer guarded.Close()
	go func() {
		for {
			conn, err := guarded.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				peer, _ := knockserver.PeerOf(conn)
				fmt.Fprintf(conn, "Hello %s.\n", peer.Grant.Client)
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()

	conn, err := aliceDialer().Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "Is there an echo?")
	lines := bufio.NewScanner(conn)
	for range 2 {
		lines.Scan()
		fmt.Println(lines.Text())
	}

	// Output:
	// Hello alice.
	// Is there an echo?
}

// Auth is for programs that accept connections themselves. Strangers go to a
// cover.
func ExampleServer_Auth() {
	server, err := knockserver.NewServer(knockserver.Config{
		Clients: aliceAlone(),
		OnRefused: func(conn net.Conn, err error) {
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.0 404 Not Found\r\n\r\n")
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				conn, err := server.Auth(context.Background(), raw)
				if err != nil {
					return // OnRefused has seen to it
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "what strangers do not see")
			}()
		}
	}()

	conn, err := aliceDialer().Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	fmt.Printf("alice: %s\n", answer)

	stranger, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(stranger, "GET / HTTP/1.0\r\n\r\n")
	line, _ := bufio.NewReader(stranger).ReadString('\n')
	fmt.Printf("stranger: %s", line)

	// Output:
	// alice: what strangers do not see
	// stranger: HTTP/1.0 404 Not Found
}

// A binary protocol whose messages begin with their length.
func ExamplePeerOf() {
	guarded := guardedListener()
	defer guarded.Close()

	writeMessage := func(w io.Writer, text string) error {
		_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
		return err
	}
	readMessage := func(r io.Reader) (string, error) {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return "", err
		}
		text := make([]byte, binary.BigEndian.Uint32(size[:]))
		_, err := io.ReadFull(r, text)
		return string(text), err
	}
	go func() {
		conn, err := guarded.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		peer, ok := knockserver.PeerOf(conn)
		for ok {
			question, err := readMessage(conn)
			if err != nil {
				return
			}
			_ = writeMessage(conn, fmt.Sprintf("%s asked %q by %v", peer.Grant.Client, question, peer.Grant.Method))
		}
	}()

	conn, err := aliceDialer().Dial("tcp", guarded.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for _, question := range []string{"who", "how"} {
		if err := writeMessage(conn, question); err != nil {
			log.Fatal(err)
		}
		answer, err := readMessage(conn)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(answer)
	}

	// Output:
	// alice asked "who" by tcp-auth-envelope-v2
	// alice asked "how" by tcp-auth-envelope-v2
}
