// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const defaultMaxConnections = 256

func (a *app) forwardCommand() *cobra.Command {
	var flags authFlags
	var listen string
	var limit int
	var asJSON bool
	cmd := a.command(cobra.Command{
		Use:   "forward --listen [ADDRESS:]PORT " + targetUsage + " [flags]",
		Short: "Forward a local port to a guarded service",
		Long: `Listen on a local port and forward each connection to a guarded service, where
it is authenticated first: for programs that know nothing of knocking. Both
directions end by themselves, so a request followed by the end of the stream
still gets its whole answer.

Whoever reaches the local port has the client's access. A port alone means one
on 127.0.0.1; port 0 means any that is free. The address is printed when the port
is open. Ctrl-C ends it, and the connections with it.`,
		Example: `
  {cmd} forward --listen 8080 alice@web.example.org:443

  # where a script needs to know the port
  {cmd} forward --listen 0 --json alice@db.example.org:5432`,
	}, cobra.RangeArgs(0, 2), func(cmd *cobra.Command, args []string) error {
		var t target
		var err error
		if len(args) > 0 {
			if t, err = parseTarget(args); err != nil {
				return err
			}
		}
		if limit < 1 {
			return usagef("--max-connections %d leaves no room for any; expect 1 or more", limit)
		}
		address, err := listenAddress(listen)
		if err != nil {
			return err
		}
		s, err := a.resolve(cmd, t, &flags)
		if err != nil {
			return err
		}
		return a.forward(cmd, s, address, limit, asJSON)
	})
	cmd.Flags().StringVar(&listen, "listen", "", "where to listen: `[ADDRESS:]PORT` (required)")
	cmd.Flags().IntVar(&limit, "max-connections", defaultMaxConnections, "how many connections at once; more wait to be accepted")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the address as JSON")
	flags.add(cmd, true)
	a.completeTargets(cmd)
	return cmd
}

// listenAddress puts 127.0.0.1 before a port that stands alone.
func listenAddress(text string) (string, error) {
	if text == "" {
		return "", usagef("--listen is missing; say on which local port to listen, as in --listen 8080")
	}
	if !strings.Contains(text, ":") {
		text = net.JoinHostPort("127.0.0.1", text)
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return "", usagef("--listen %q is not [ADDRESS:]PORT: %w", text, err)
	}
	return text, nil
}

func (a *app) forward(cmd *cobra.Command, s *session, address string, limit int, asJSON bool) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer listener.Close()
	local := listener.Addr().(*net.TCPAddr)
	if !local.IP.IsLoopback() {
		warn(cmd, "%v is not a loopback address: everybody who reaches it has the access of client %s", local, s.dialer.Config.ClientID)
	}
	if asJSON {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
			"listening": local.String(), "target": s.address, "client": s.dialer.Config.ClientID,
		})
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Listening on %v, forwarding to %s as %s.\n", local, s.address, s.dialer.Config.ClientID)
	}
	if err != nil {
		return fmt.Errorf("printing the address: %w", err)
	}
	var mu sync.Mutex
	f := forwarder{session: s, listener: listener, places: make(chan struct{}, limit), report: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		printFailure(cmd, asFailure(err))
	}}
	f.serve(ctx)
	return nil
}

// forwarder accepts connections and forwards each to the session's address.
type forwarder struct {
	*session
	listener net.Listener
	places   chan struct{} // one element for each connection
	report   func(error)
	wg       sync.WaitGroup
}

// serve works until ctx ends; then all connections are closed.
func (f *forwarder) serve(ctx context.Context) {
	defer f.wg.Wait()
	defer context.AfterFunc(ctx, func() { _ = f.listener.Close() })()
	for delay := time.Duration(0); ; {
		select {
		case f.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := f.listener.Accept()
		if err == nil {
			delay = 0
			f.wg.Go(func() {
				defer func() { <-f.places }()
				f.handle(ctx, conn)
			})
			continue
		}
		<-f.places
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors, or the peer was gone already: it gets better.
		f.report(fmt.Errorf("accepting: %w", err))
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
	}
}

// handle forwards one connection.
func (f *forwarder) handle(ctx context.Context, local net.Conn) {
	defer local.Close()
	remote, err := f.dialer.DialContext(ctx, f.network, f.address)
	if err != nil {
		if tcp, ok := local.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset says that something is wrong, an end does not
		}
		if ctx.Err() == nil {
			f.report(f.dialError(err))
		}
		return
	}
	defer remote.Close()
	closeBoth := func() {
		_ = local.Close()
		_ = remote.Close()
	}
	defer context.AfterFunc(ctx, closeBoth)()
	relayConns(local, remote, closeBoth)
}

// relayConns copies both ways until both have ended. The end of one direction is
// passed on; if one breaks, so does the other.
func relayConns(a, b net.Conn, abort func()) {
	copyTo := func(dst, src net.Conn) {
		if _, err := io.Copy(dst, src); err != nil {
			abort()
			return
		}
		closeWrite(dst)
	}
	var wg sync.WaitGroup
	wg.Go(func() { copyTo(b, a) })
	copyTo(a, b)
	wg.Wait()
}
